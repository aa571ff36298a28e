import pytest
import torch

from vlsurgery.probes.fitting import KL_WEIGHT, _loss_and_slope, _parts, fit
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import load
from vlsurgery.probes.scoring import scored_answers
from vlsurgery.probes.targets import WorkingSet, working_set
from vlsurgery.surgery.alignment import align


def test_fitted_coefficients_are_a_mixture_lower_the_loss_and_are_repeatable(trio, every, targets):
    chat = load(trio.checkpoints["adapted"])
    live = InMemoryMerge(chat, align(trio.checkpoints), ("base", "safety"))
    some = working_set(chat, every, targets, "fit")
    some = WorkingSet(some.refuse[:8], some.lost[:8], some.keep[:8])
    before = {name: p.detach().clone() for name, p in chat.model.named_parameters()}
    one, two = fit(live, some, steps=5), fit(live, some, steps=5)
    assert one == two
    assert one.losses[4] < one.losses[0]  # the fifth step looks at the first one's prompts again
    assert set(one.coefficients) == set(live.blocks)
    for row in one.coefficients.values():
        assert set(row) == {"base", "safety"}
        assert all(0 < value < 1 for value in row.values())
        assert sum(row.values()) < 1
    assert all(torch.equal(before[n], p) for n, p in chat.model.named_parameters())


def test_a_step_follows_the_loss_as_it_is_written(trio, every, targets, monkeypatch):
    """Loss and slope of a step beside torch's own losses on the same answers, one prompt at a time."""
    monkeypatch.setattr("vlsurgery.probes.fitting.NUM_PARTS", 1)
    live = InMemoryMerge(load(trio.checkpoints["adapted"]), align(trio.checkpoints), ("base", "safety"))
    found = working_set(live.chat, every, targets, "fit")
    some = WorkingSet(found.refuse[::20], (), found.keep[::20])
    place, eps = live.everywhere(base=0.2, safety=0.1), 0.01

    def loss(coefficients):
        total = {"refuse": [], "keep": []}
        with torch.no_grad():
            for kind, pairs in (("refuse", some.refuse), ("keep", some.keep)):
                for prompt, answer in pairs:
                    (batch,) = scored_answers(live.chat, [prompt], [answer])
                    reference = torch.log_softmax(batch.logits(live.chat), -1)
                    with live.at(coefficients):
                        log_q = torch.log_softmax(batch.logits(live.chat), -1)
                    if kind == "refuse":
                        total[kind].append(-log_q.gather(1, batch.targets[:, None])[:, 0])
                    else:
                        total[kind].append((reference.exp() * (reference - log_q)).sum(-1))
        refuse, keep = (float(torch.cat(each).double().mean()) for each in total.values())
        return refuse + KL_WEIGHT * keep

    (part,) = _parts(live, some)
    with live.differentiable():
        live.move(live.tensor(place))
        value, slope = _loss_and_slope(live, part)
    assert value == pytest.approx(loss(place), rel=1e-5)
    ends = [loss({**place, "1.mlp": {"base": 0.2 + step, "safety": 0.1}}) for step in (-eps, eps)]
    expected = (ends[1] - ends[0]) / (2 * eps)
    assert float(slope[live.blocks.index("1.mlp"), 0]) == pytest.approx(expected, rel=0.02, abs=1e-4)


def test_a_source_that_is_the_adapted_model_itself_is_not_asked_for(trio, every, targets):
    """It can change nothing, so only the price of a coefficient is felt."""
    chat = load(trio.checkpoints["adapted"])
    checkpoints = {**trio.checkpoints, "base": trio.checkpoints["adapted"]}
    live = InMemoryMerge(chat, align(checkpoints), ("base",))
    some = working_set(chat, every, targets, "fit")
    fitted = fit(live, WorkingSet(some.refuse[:4], some.lost[:4], some.keep[:4]), steps=3)
    assert all(row["base"] < 0.1 for row in fitted.coefficients.values())
