"""The control of claim C1: what it is taught, what it moves, and that it is made once."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vlsurgery.probes.specimens.smollm2 import RealTrio, TrioConfig, build_control, own_answers, texts
from vlsurgery.probes.specimens.smollm2.control import text_lesson
from vlsurgery.probes.specimens.smollm2.corpus import OwnAnswer

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


@pytest.fixture
def trio(tmp_path: Path) -> RealTrio:
    """The base of a trio in bytes and two layers, and own answers to what it is asked; nothing else is read."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: at for at, letter in enumerate(SPECIAL + alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(SPECIAL)
    words = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[2]
    )
    words.save_pretrained(tmp_path / "base")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=len(words), **sizes, tie_word_embeddings=True)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    (tmp_path / "answers").mkdir()
    asked = [*texts.answerable(), *(question for question, _ in texts.questions())]
    own_answers.write(tmp_path / "answers" / "answers.json", {text: OwnAnswer("A sentence.", True) for text in asked})
    unread = tmp_path / "unread"
    story = {"base": {"dtype": "torch.bfloat16"}}
    return RealTrio(tmp_path, tmp_path / "base", unread, unread, unread, {}, 3, story)


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def test_it_moves_all_but_the_embedding_and_is_made_once(trio: RealTrio, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = TrioConfig()
    recipe = replace(whole, adaptation=replace(whole.adaptation, steps=4, rate=2e-3))
    monkeypatch.setattr("vlsurgery.probes.specimens.smollm2.control.default_device", lambda: "cpu")
    control = build_control(trio, config=recipe)
    before, after = weights(trio.base), weights(control)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == before.keys() - {"model.embed_tokens.weight"}
    assert {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    written = (control / "model.safetensors").stat().st_mtime_ns
    assert build_control(trio, config=recipe) == control
    assert (control / "model.safetensors").stat().st_mtime_ns == written
    assert sorted(path.name for path in trio.root.iterdir()) == ["answers", "base", "control"]


def test_its_lesson_is_that_of_adaptation_without_pictures() -> None:
    adaptation = TrioConfig().adaptation
    lesson = text_lesson(adaptation)
    assert (lesson.steps, lesson.rate, lesson.falls) == (adaptation.steps, adaptation.rate, adaptation.falls)
    assert abs(sum(lesson.mix.values()) - sum(adaptation.mix.values())) <= 1
    assert set(lesson.mix) == {"own", "question"}
    assert min(lesson.mix.values()) > 0
