import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.merge_parameters import ALL_ON_CPU, SOME_ON_CPU, room_for_values
from vlsurgery.probes.models import Loader, load
from vlsurgery.probes.scoring import (
    answer_states,
    log_probabilities,
    mean_divergence,
    refusal_choices,
    refusal_log_odds,
    scored_answers,
)
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.coefficients import Coefficients
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge


@pytest.fixture
def live(trio):
    chat = load(trio.checkpoints["adapted"])
    return InMemoryMerge(chat, align(trio.checkpoints), ("base", "safety"))


def text_parameters(chat):
    return {
        n: p.detach().clone() for n, p in chat.model.named_parameters() if "vision" not in n and "projector" not in n
    }


def test_every_layer_has_its_two_blocks_and_the_rest_its_own(live):
    layers = [f"{layer}.{part}" for layer in range(3) for part in ("attn", "mlp")]
    assert live.blocks == ("embed", *layers, "head", "norm")


def test_at_zero_nothing_moves_and_afterwards_everything_is_back(live):
    before = {name: p.detach().clone() for name, p in live.chat.model.named_parameters()}
    with live.at({}):
        assert all(torch.equal(before[n], p) for n, p in live.chat.model.named_parameters())
    with pytest.raises(KeyError), live.at(live.everywhere(base=0.3, safety=0.4)):
        raise KeyError
    assert all(torch.equal(before[n], p) for n, p in live.chat.model.named_parameters())


def test_at_one_the_text_stack_is_the_sources_and_added_rows_stay(live, trio):
    rows = len(load(trio.checkpoints["base"]).tokenizer)
    base = load(trio.checkpoints["base"]).model.state_dict()
    adapted = {n: p.detach().clone() for n, p in live.chat.model.named_parameters()}
    with live.at(live.everywhere(base=1.0)):
        for name, value in live.chat.model.named_parameters():
            other = base.get(name.replace("model.language_model.", "model."))
            if other is None:
                assert torch.equal(value, adapted[name])
            else:
                torch.testing.assert_close(value[: len(other)], other, rtol=0, atol=1e-6)
    embed = live.chat.model.get_input_embeddings().weight
    assert len(embed) == rows + 1
    assert torch.equal(embed[rows:], adapted["model.language_model.embed_tokens.weight"][rows:])


def test_a_transplant_moves_one_block_only(live):
    before = text_parameters(live.chat)
    with live.at({"1.mlp": {"base": 1.0}}):
        moved = {n for n, p in text_parameters(live.chat).items() if not torch.equal(p, before[n])}
    assert moved
    assert all(".layers.1." in name and ("mlp" in name or "post_attention_layernorm" in name) for name in moved)


def test_unknown_blocks_are_refused(live):
    with pytest.raises(ValueError, match=r"9\.attn"), live.at({"9.attn": {"base": 1.0}}):
        pass


def test_the_graft_answers_text_as_the_base_does(live, trio, asked):
    texts = [prompt for prompt in asked if prompt.modality == "text"]
    base = load(trio.checkpoints["base"])
    answers = [torch.tensor([5, 6, 7])] * len(texts)
    reference = list(log_probabilities(base, scored_answers(base, texts, answers)))
    with live.at(live.everywhere(base=1.0)) as chat:
        ours = list(log_probabilities(chat, scored_answers(chat, texts, answers)))
    width = reference[0].shape[1]
    for one, other in zip(ours, reference, strict=True):
        # the added row takes a little probability; among the common words the two are one model
        torch.testing.assert_close(torch.log_softmax(one[:, :width], -1), other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("point", [0.0, 0.4])
def test_the_gradient_is_the_slope_of_finite_differences(live, asked, point):
    batches = refusal_choices(live.chat, asked, [torch.tensor([5])] * len(asked), [torch.tensor([9])] * len(asked))
    with live.differentiable():
        live.move(live.tensor(live.everywhere(base=point)))
        for batch in batches:
            (batch.log_odds(live.chat).sum() / len(asked)).backward()
        slope = live.gradient()
    assert all(p.grad is None and not p.requires_grad for p in live.chat.model.parameters())
    for block in ("embed", "0.attn", "2.mlp", "head"):
        for source in ("base", "safety"):
            ends = []
            for step in (-0.01, 0.01):
                place = live.everywhere(base=point)
                place[block] = {**place[block], source: place[block].get(source, 0.0) + step}
                with live.at(place) as chat:
                    ends.append(float(refusal_log_odds(chat, batches).mean()))
            expected = (ends[1] - ends[0]) / 0.02
            found = float(slope[live.blocks.index(block), live.sources.index(source)])
            assert found == pytest.approx(expected, rel=0.05, abs=2e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_point_in_memory_is_the_checkpoint_that_is_written_for_it(trio, tmp_path, dtype):
    """The grid's numbers are those of the merge that a user gets."""
    live = InMemoryMerge(
        load(trio.checkpoints["adapted"], Loader(dtype=dtype)), align(trio.checkpoints), ("base", "safety")
    )
    place = live.everywhere(base=0.3, safety=0.4) | {"1.mlp": {"base": 0.0, "safety": 1.0}}
    run_merge(Recipe.of(trio.checkpoints, Coefficients(place)), tmp_path / "merged")
    written = text_parameters(load(Checkpoint.open(tmp_path / "merged"), Loader(dtype=dtype)))
    with live.at(place):
        found = text_parameters(live.chat)
    assert all(torch.equal(value, written[name]) for name, value in found.items())


def test_points_that_follow_each_other_are_the_points_alone_and_the_last_is_left(live):
    before, places = text_parameters(live.chat), ({"1.mlp": {"base": 1.0}}, {"0.attn": {"safety": 0.5}})
    alone = []
    for place in places:
        with live.at(place):
            alone.append(text_parameters(live.chat))
    with live.staying():
        with live.staying():
            pass
        for place, expected in zip(places, alone, strict=True):
            with live.at(place):
                pass
            assert all(torch.equal(value, expected[name]) for name, value in text_parameters(live.chat).items())
    assert all(torch.equal(value, before[name]) for name, value in text_parameters(live.chat).items())
    with live.at(places[0]):
        pass
    assert all(torch.equal(value, before[name]) for name, value in text_parameters(live.chat).items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_source_that_is_broken_is_named_and_the_weights_are_restored(trio, tmp_path, bad):
    shutil.copytree(trio.base, tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.up_proj.weight"][2, 3] = bad
    save_file(tensors, file, {"format": "pt"})
    checkpoints = {"base": Checkpoint.open(tmp_path / "base"), "adapted": trio.checkpoints["adapted"]}
    live = InMemoryMerge(load(checkpoints["adapted"]), align(checkpoints), ("base",))
    before = text_parameters(live.chat)
    fault = r"base .*layers\.1\.mlp\.up_proj\.weight.*NaN or infinite"
    with pytest.raises(CheckpointError, match=fault), live.at(live.everywhere(base=0.5)):
        pass
    assert all(torch.equal(value, before[name]) for name, value in text_parameters(live.chat).items())


def test_no_more_stays_in_memory_than_there_is_room_for(trio):
    chat = load(trio.checkpoints["adapted"])
    weights = sum(weight.nbytes for weight in chat.model.parameters())
    assert room_for_values(chat, ALL_ON_CPU) == ALL_ON_CPU
    assert room_for_values(chat, ALL_ON_CPU + 1) == SOME_ON_CPU
    chat.memory = weights + 1000
    assert room_for_values(chat, ALL_ON_CPU) == 500
    chat.memory = 1
    assert room_for_values(chat, ALL_ON_CPU) == 0


def test_divergence_is_zero_at_home_and_positive_away(live, asked):
    batches = scored_answers(live.chat, asked, [torch.tensor([5, 6])] * len(asked))
    reference = answer_states(live.chat, batches)
    assert mean_divergence(live.chat, batches, reference, live.adapted_head) == pytest.approx(0, abs=1e-6)
    with live.at(live.everywhere(base=1.0)) as chat:
        assert mean_divergence(chat, batches, reference, live.adapted_head) > 0


def test_values_from_files_and_from_memory_give_the_same_bytes(trio, asked, monkeypatch):
    monkeypatch.setattr("vlsurgery.probes.merge_parameters.CHUNK_ENTRIES", 100)
    found = []
    for room in (0, 20_000, 10**9):
        chat = load(trio.checkpoints["adapted"])
        live = InMemoryMerge(chat, align(trio.checkpoints), ("base", "safety"), resident_bytes=room)
        with live.differentiable():
            live.move(live.tensor(live.everywhere(base=0.3, safety=0.2)))
            for batch in scored_answers(chat, asked[:8], [torch.tensor([5, 6])] * 8):
                batch.logits(chat).logsumexp(-1).sum().backward()
            found.append((text_parameters(chat), live.gradient()))
    (values, slopes), *others = found
    for other, gradient in others:
        assert all(torch.equal(other[name], value) for name, value in values.items())
        assert torch.equal(gradient, slopes)


def test_blocks_whose_coefficients_stay_are_left_alone(live, monkeypatch):
    moved = []
    whole = InMemoryMerge._set
    monkeypatch.setattr(
        InMemoryMerge,
        "_set",
        lambda self, entry, *rest: (moved.append(self.blocks[entry.block]), whole(self, entry, *rest)),
    )
    place = live.everywhere(base=0.2)
    live.move(live.tensor(place))
    assert set(moved) == set(live.blocks)
    moved.clear()
    live.move(live.tensor({**place, "1.mlp": {"base": 0.4}}))
    assert set(moved) == {"1.mlp"}


def test_no_gradient_is_left_alive_by_a_backward_pass(live, asked):
    (batch, *_) = scored_answers(live.chat, asked[:4], [torch.tensor([5])] * 4)
    with live.differentiable():
        batch.logits(live.chat).sum().backward()
        assert all(p.grad is None for p in live.chat.model.parameters())
        assert live.gradient().abs().sum() > 0
        assert live.gradient().abs().sum() == 0


def test_bfloat16_is_merged_in_float32_and_rounded_once(trio):
    chat = load(trio.checkpoints["adapted"], Loader(dtype="bfloat16"))
    live = InMemoryMerge(chat, align(trio.checkpoints), ("base", "safety"))
    exact = load(trio.checkpoints["adapted"], Loader(dtype="float32"))
    before = {name: p.detach().clone() for name, p in chat.model.named_parameters()}
    other = InMemoryMerge(exact, align(trio.checkpoints), ("base", "safety"))
    place = live.everywhere(base=0.3, safety=0.4)
    with live.at(place), other.at(place):
        expected = text_parameters(exact)
        assert all(torch.equal(p, expected[n].bfloat16()) for n, p in text_parameters(chat).items())
    assert all(torch.equal(before[n], p) for n, p in chat.model.named_parameters())
