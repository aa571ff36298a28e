"""What adding a direction brings back, and the kind of loss as it is measured on a model in memory."""

import numpy as np
import pytest
import torch

from vlsurgery.probes import layer_readings
from vlsurgery.probes.added_direction import brought_back, random_directions, strongest_layer
from vlsurgery.probes.contrasts import Directions
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.layer_patching import PatchedOdds
from vlsurgery.probes.loss_teller import LossTeller
from vlsurgery.probes.models import load
from vlsurgery.probes.next_tokens import next_tokens, read_openings
from vlsurgery.probes.results import Target
from vlsurgery.surgery.alignment import align

OPENINGS = [7, 11]


@pytest.fixture(scope="module")
def live(trio):
    alignment = align(trio.checkpoints)
    return InMemoryMerge(load(trio.checkpoints["adapted"]), alignment.among(("adapted", "base")), ("base",))


@pytest.fixture(scope="module")
def asked_harmful(asked):
    return [prompt for prompt in asked if (prompt.set, prompt.modality) == ("harmful", "text")]


@pytest.fixture(scope="module")
def ends(live, asked_harmful) -> PatchedOdds:
    """The adapted model's own log-odds, and a graft that is 4 nats above at every prompt."""
    odds = read_openings(live.chat, next_tokens(live.chat, asked_harmful), torch.tensor(OPENINGS)).odds.numpy()
    return PatchedOdds([2], odds, odds + 4.0, {})


@pytest.fixture(scope="module")
def vectors(live):
    """Nothing behind the first layer; behind the second, what the head reads as an opening."""
    found = torch.zeros(3, 32, dtype=torch.float64)
    found[1] = live.chat.model.lm_head.weight[OPENINGS].sum(0).double()
    return found


def test_a_vector_of_nothing_brings_nothing_and_one_toward_the_openings_much(live, asked_harmful, ends, vectors):
    nothing = brought_back(live.chat, asked_harmful, OPENINGS, vectors, 0, ends)
    assert nothing.added.value == pytest.approx(0, abs=1e-5)
    assert nothing.randoms == pytest.approx([0.0] * 5, abs=1e-5)
    much = brought_back(live.chat, asked_harmful, OPENINGS, 8 * vectors, 1, ends)
    assert much.added.value > max(*much.randoms, 0.25)
    assert much.added.low < much.added.value < much.added.high
    assert (much.layer, much.added.n) == (1, 6)


def test_the_part_is_that_of_a_hook_by_hand(live, asked_harmful, ends, vectors):
    chat = live.chat
    handle = chat.blocks[1].register_forward_hook(
        lambda module, args, output: (  # noqa: ARG005
            output + vectors[1].float() if isinstance(output, torch.Tensor) else (output[0] + vectors[1].float(),)
        )
    )
    by_hand = read_openings(chat, next_tokens(chat, asked_harmful), torch.tensor(OPENINGS)).odds.numpy()
    handle.remove()
    found = brought_back(chat, asked_harmful, OPENINGS, vectors, 1, ends)
    assert found.added.value == pytest.approx(float(np.mean(by_hand - ends.adapted)) / 4.0, abs=1e-4)


def test_the_layer_that_raises_refusals_most_is_chosen_and_no_late_one(live, asked_harmful, vectors):
    ids = torch.tensor(OPENINGS)
    assert strongest_layer(live.chat, asked_harmful, ids, vectors) == 1
    late = torch.roll(vectors, 1, 0)  # behind the last layer it would raise them too
    assert strongest_layer(live.chat, asked_harmful, ids, late) in (0, 1)


def test_random_directions_are_as_long_and_always_the_same():
    vector = torch.arange(32.0)
    found = random_directions(vector, 3)
    assert found.norm(dim=1).tolist() == pytest.approx([float(vector.norm())] * 5)
    assert torch.equal(found, random_directions(vector, 3))
    assert not torch.equal(found, random_directions(vector, 4))


def test_patching_and_kind_are_told_of_one_modality(live, every, vectors):
    asked = {prompt.id: prompt for prompt in every}
    harmful = [p.id for p in every if (p.set, p.split) == ("harmful", "fit") and p.modality in ("text", "benign")]
    answers = [Target(prompt=name, role="adapted", text="x", ids=[7], verdict="complied") for name in harmful]
    directions = Directions(("instruction", "-1"), torch.stack([vectors, vectors]), (vectors, vectors))
    told = LossTeller(live, OPENINGS, asked, directions, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_readings, "MAX_SHOWN", 4)
        patched, loss = told.tell("benign", answers)
        without = LossTeller(live, OPENINGS, asked, None, {}).tell("text", answers)[1]
    assert (patched.modality, patched.requests) == ("benign", 4)
    assert [curve.tokens for curve in patched.curves] == ["image", "text", "all"]
    assert (loss.complied.rate, loss.complied.n, loss.neither.rate, loss.layer) == (1.0, 40, 0.0, 1)
    assert loss.kind == "can't tell"  # no separation was measured
    assert without.layer is None
    assert without.added.reason == "no direction could be made"
