"""Batches that memory runs out for are halved, down to one prompt; what is asked twice is encoded once."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.models import kept as kept_prompts, load
from vlsurgery.probes.models.batches import Encoded
from vlsurgery.probes.models.kept import KeptPrompts
from vlsurgery.probes.models.room import MAX_BATCH_TOKENS, MIN_BATCH_TOKENS, most_tokens
from vlsurgery.probes.prompts import Prompt
from vlsurgery.surgery.errors import SurgeryError


@pytest.fixture
def adapted(trio):
    return load(trio.checkpoints["adapted"])


@pytest.mark.parametrize("most", [1, 5])
def test_a_batch_that_memory_runs_out_for_is_halved_and_nothing_is_lost(adapted, asked, most, monkeypatch):
    expected = complete(adapted, asked, "asking", tokens=4)
    generate, sizes = adapted.model.generate, []

    def narrow(**inputs):
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(**inputs)

    monkeypatch.setattr(adapted.model, "generate", narrow)
    written = []
    found = complete(adapted, asked, "asking", tokens=4, written=lambda prompts, _: written.extend(prompts))
    assert found == expected
    assert sorted(prompt.id for prompt in written) == sorted(prompt.id for prompt in asked)
    assert sizes.count(max(sizes)) <= 2, "a size that failed is not tried again and again"


def test_a_prompt_that_does_not_fit_alone_is_told_in_one_line(adapted, asked, monkeypatch):
    def never(**inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(adapted.model, "generate", never)
    with pytest.raises(
        SurgeryError, match=r"^prompt \S+ alone, of [\d,]+ tokens, does not fit.*--dtype bfloat16"
    ) as found:
        complete(adapted, asked[:4], "asking", tokens=4)
    assert "\n" not in str(found.value)


def test_other_faults_of_a_model_are_not_taken_for_want_of_memory(adapted, asked, monkeypatch):
    def broken(**inputs):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(adapted.model, "generate", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        complete(adapted, asked[:4], "asking", tokens=4)


def test_batches_grow_with_the_memory_that_is_given():
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=50))
    weights = sum(weight.nbytes for weight in model.parameters())
    bounds = [most_tokens(model, weights + room) for room in (0, 2**23, 2**24, 2**40)]
    assert bounds == sorted(bounds)
    assert bounds[0] == MIN_BATCH_TOKENS < bounds[1] < bounds[2]
    assert bounds[-1] == most_tokens(model, None) == MAX_BATCH_TOKENS["cpu"]


def test_the_same_prompt_is_encoded_once_and_stays_what_it_is(adapted, asked, monkeypatch):
    first = adapted.encode(asked)
    monkeypatch.setattr(adapted, "_encode", None)
    again = adapted.encode(asked)
    assert all(
        one.ids is other.ids and other.prompt is prompt for one, other, prompt in zip(first, again, asked, strict=True)
    )


def test_kept_prompts_are_bounded_and_tell_a_changed_picture_file(tmp_path):
    made = []

    def make(prompt):
        made.append(prompt.text)
        return Encoded(prompt, torch.zeros(100, dtype=torch.long), {}, 1)

    def ask(text, path=None):
        modality = "text" if path is None else "own"
        keeping.get(Prompt("p", "r", "harmless", text, "fit", modality, path), make)

    keeping = KeptPrompts(most=2000)  # two of 800 bytes
    for text in ("a", "b", "a", "c", "a", "b"):
        ask(text)
    assert made == ["a", "b", "c", "b"]
    picture = tmp_path / "p.png"
    picture.write_bytes(b"1")
    ask("seen", picture)
    ask("seen", picture)
    picture.write_bytes(b"22")
    ask("seen", picture)
    assert made[4:] == ["seen", "seen"]
    assert kept_prompts.MAX_KEPT_BYTES < 2**30


def test_a_model_without_end_and_padding_tokens_completes_to_the_length_asked_for(trio, asked):
    base = load(trio.checkpoints["base"])
    base.tokenizer.eos_token = base.tokenizer.pad_token = None
    base.model.generation_config.eos_token_id = None
    other = type(base)(base.model, base.tokenizer, None, base.blocks)
    texts = [prompt for prompt in asked if prompt.image is None][:3]
    found = complete(other, texts, "asking", tokens=5)
    assert [len(completion.ids) for completion in found] == [5, 5, 5]
    assert not any(completion.finished for completion in found)
    assert found == [complete(other, [prompt], "asking", tokens=5)[0] for prompt in texts]
    assert any("no end token" in note for note in other.notes)
