"""All stages on a tiny stand-in for the source: what each moves and leaves, and that a build goes on where it was."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.models import Loader
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.prompts.pictures import scene
from vlsurgery.probes.specimens.smollm2 import (
    RealTrio,
    TrioConfig,
    build,
    build_alternatives,
    own_answers,
    preferences,
    source as sources,
    stages,
    texts,
)
from vlsurgery.probes.specimens.smollm2.build import run_missing
from vlsurgery.probes.specimens.smollm2.config import Lesson
from vlsurgery.probes.specimens.smollm2.workshop import Workshop
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.progress import no_progress

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def lesson(of: Lesson, steps: int, kept: tuple[int, ...] = ()) -> Lesson:
    return replace(of, steps=steps, kept=kept, rate=2e-3, mix=dict.fromkeys(of.mix, 1))


def tiny() -> TrioConfig:
    recipe = TrioConfig()
    return replace(
        recipe,
        own_tokens=3,
        tower_width=64,
        tower_layers=1,
        digits=12,
        figures=12,
        scenes=3,
        picture_batch=8,
        refusing=lesson(recipe.refusing, 12),
        telling_apart=lesson(recipe.telling_apart, 3),
        tower=lesson(recipe.tower, 10),
        naming=lesson(recipe.naming, 10),
        projector=lesson(recipe.projector, 3),
        adaptation=lesson(recipe.adaptation, 6, (0, 2, 6)),
        safety=lesson(recipe.safety, 4, (1, 4)),
        preference=lesson(recipe.preference, 4),
        pairs=6,
        mixed=lesson(recipe.mixed, 2),
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers with a byte-level tokenizer, as the real source is but in size."""
    folder = tmp_path_factory.mktemp("source") / "source-tiny"
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        texts.ordinary(), trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet)
    )
    words = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=SPECIAL[1], eos_token=SPECIAL[2], pad_token=SPECIAL[2]
    )
    words.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(words), **sizes, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=2
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


def as_if_lost(requests, shown, base, adapted) -> list[preferences.Preference]:
    """Every request as one whose refusal was lost."""
    each = zip(requests, shown, base, adapted, strict=True)
    return [preferences.Preference(text, at, one, other, False) for text, at, one, other in each]


@pytest.fixture(scope="module")
def trio(source: Path, tmp_path_factory: pytest.TempPathFactory) -> RealTrio:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "find", lambda _cache: source)
        patch.setattr(own_answers, "is_right", lambda _said, _answer: True)  # an untrained model knows none
        patch.setattr(preferences, "lost", as_if_lost)  # nor does it refuse
        made = build(3, tmp_path_factory.mktemp("cache"), config=tiny(), device="cpu")
        assert build_alternatives(made, config=tiny()) == (made.dpo, made.mixed)
        return made


def weights(directory: Path) -> dict[str, Tensor]:
    """A checkpoint's tensors, the language model's under the base's names."""
    found = load_file(directory / "model.safetensors")
    return {name.replace("language_model.model.", "model."): tensor for name, tensor in found.items()}


def moved(one: Path, other: Path) -> set[str]:
    """Names of the tensors that both have and that differ, as far as both have rows."""
    first, second = weights(one), weights(other)
    shared = first.keys() & second.keys()
    assert len(shared) > 15
    return {name for name in shared if not torch.equal(first[name], second[name][: len(first[name])])}


def test_losses_fall_where_lessons_are_long_enough(trio: RealTrio) -> None:
    for told in (trio.story["base"]["refusing"], trio.story["tower"]["naming"]):
        assert told["last"] < told["first"]


def test_each_stage_moves_its_own_weights_alone(trio: RealTrio, source: Path) -> None:
    embedding = "model.embed_tokens.weight"
    assert moved(source, trio.base) == weights(source).keys() - {embedding}
    assert moved(trio.base, trio.root / "tower") == set()
    projected = moved(trio.root / "tower", trio.root / "projector")
    assert projected
    assert all("multi_modal_projector" in name for name in projected)
    assert moved(trio.root / "projector", trio.trajectory[0]) == set()
    adapted = moved(trio.trajectory[0], trio.adapted)
    assert embedding not in adapted
    assert not [name for name in adapted if "vision_tower" in name]
    assert any("multi_modal_projector" in name for name in adapted)
    for directory in (trio.safety, trio.dpo):
        tuned = moved(trio.adapted, directory)
        assert tuned
        assert not [name for name in tuned if "vision_tower" in name or "projector" in name]
    mixed = moved(trio.trajectory[0], trio.mixed)
    assert any("multi_modal_projector" in name for name in mixed)
    assert not [name for name in mixed if "vision_tower" in name]


def test_all_is_stored_in_bfloat16(trio: RealTrio) -> None:
    for directory in (trio.base, trio.adapted, trio.mild, trio.safety, trio.dpo, trio.mixed):
        assert {tensor.dtype for tensor in weights(directory).values()} == {torch.bfloat16}


def test_what_is_written_runs_as_any_checkpoint(trio: RealTrio) -> None:
    pictured = Prompt("a", "a", "harmless", "What is this?", "report", "benign", scene(0))
    plain = Prompt("b", "b", "harmless", "What is this?", "report")
    chat = Loader(dtype="float32", device="cpu").load(Checkpoint.open(trio.adapted))
    one, other = chat.encode([pictured, plain])
    assert len(one.ids) - len(other.ids) == 10  # nine image tokens and the end of their line
    assert one.post == other.post
    assert len(complete(chat, [pictured, plain], "ask", tokens=2)) == 2
    assert not Loader(dtype="float32", device="cpu").load(Checkpoint.open(trio.base)).sees


def test_a_broken_build_goes_on_with_the_stage_that_broke(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    faults = {"second"}

    def stage(name: str) -> stages.Stage:
        def run(_work: Workshop, out: Path) -> stages.Report:
            (out / "half").write_text("")
            if name in faults:
                raise KeyboardInterrupt
            done.append(name)
            return {"steps": len(done)}

        return run

    work = Workshop(tiny(), 0, tmp_path, source, "cpu", torch.float32, no_progress)
    todo = [(name, stage(name)) for name in ("first", "second", "third")]
    with pytest.raises(KeyboardInterrupt):
        run_missing(work, todo)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    faults.clear()
    run_missing(work, todo)
    run_missing(work, todo)
    assert done == ["first", "second", "third"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second", "third"]


def test_a_trio_that_is_there_is_not_trained_again(
    trio: RealTrio, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "find", lambda _cache: source)
    asked: list[str] = []

    def shown(items, label: str, total: int | None = None):
        asked.append(label)
        return items

    assert build(3, trio.root.parents[1], shown, tiny(), "cpu") == trio
    assert asked == []


def test_a_stage_redone_gives_the_same_weights(
    trio: RealTrio, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "find", lambda _cache: source)
    copied = tmp_path / trio.root.parent.name / trio.root.name
    shutil.copytree(trio.root, copied)
    shutil.rmtree(copied / "safety")
    again = build(3, tmp_path, config=tiny(), device="cpu")
    assert moved(again.safety, trio.safety) == set()


def test_what_a_killed_build_left_is_removed_and_two_at_once_are_refused(source: Path, tmp_path: Path) -> None:
    work = Workshop(tiny(), 0, tmp_path, source, "cpu", torch.float32, no_progress)
    left = tmp_path / "adaptation-x.partial" / "adaptation"
    left.mkdir(parents=True)
    (left / "half").write_text("")
    faults: list[str] = []

    def stage(_work: Workshop, _out: Path) -> stages.Report:
        assert not left.parent.exists()
        with pytest.raises(CheckpointError, match="another process builds this trio"):
            run_missing(work, [("first", stage)])
        faults.append("kept out")
        return {}

    run_missing(work, [("first", stage)])
    run_missing(work, [("second", lambda _work, _out: {})])
    assert faults == ["kept out"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_where_no_refusal_was_lost_there_is_nothing_to_prefer(trio: RealTrio, tmp_path: Path) -> None:
    copied = tmp_path / "trio"
    shutil.copytree(trio.root, copied, ignore=shutil.ignore_patterns("preference"))
    there = replace(trio, root=copied, base=copied / "base")
    with pytest.raises(CheckpointError, match="nothing to prefer"):  # untrained models refuse nothing
        build_alternatives(there, config=tiny())
