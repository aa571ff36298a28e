"""The least intervention within limits: a model in which the answer is known by hand, and what is said of no answer."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from vlsurgery.probes import limited, within_limits as module
from vlsurgery.probes.evaluation.limits import Limits
from vlsurgery.probes.limited import LeastWithin, promises, shares
from vlsurgery.probes.linearised import LinearModel
from vlsurgery.probes.objective import requirements
from vlsurgery.probes.results import Rate, TradeoffPoint
from vlsurgery.probes.trials import Trial
from vlsurgery.probes.trust_region import ConvexStep
from vlsurgery.probes.within_limits import within_limits

PURPOSES = {"harmful": "refuse", "harmless": "answer", "capability": "keep"}
REQUESTS = 40  # of each set


@pytest.fixture(autouse=True)
def two_prices(monkeypatch):
    """These models have one coefficient that does anything, so that no more prices are needed to find the answer."""
    monkeypatch.setattr(limited, "OVER_REFUSALS", (0.3, 10.0))
    monkeypatch.setattr(limited, "CHANGES", (0.0, 0.08, 0.3))


def made(harmful: float = 8.0, harmless: float = 0.0, sight: float = 0.0) -> LinearModel:
    """Harmful prompts of log-odds spread from -1 to 0, harmless ones at -1, own answers at 2. Coefficient 0 moves each
    set by the given slope, coefficient 1 nothing at all. Both start at .2."""
    sets = list(PURPOSES)
    rows = [(str(i), str(i), (sets[i % 3], "text"), PURPOSES[sets[i % 3]]) for i in range(3 * REQUESTS)]
    z = np.array([-1.0, -1.0, 2.0])[np.arange(len(rows)) % 3]
    z[::3] = np.linspace(-1, 0, REQUESTS)
    jacobian = np.zeros((len(rows), 2))
    jacobian[:, 0] = np.array([harmful, harmless, sight])[np.arange(len(rows)) % 3]
    wanted = requirements(rows, np.full(len(rows), 2.0))
    at = np.full(2, 0.2)
    return LinearModel(wanted, at, z + 0.2 * jacobian[:, 0], jacobian, np.arange(2))


def limits(bind: str = "point", **sets: dict[str, float]) -> Limits:
    return Limits.model_validate({"bind": bind, "sets": sets})


def search(model: LinearModel, asked: Limits, margin: float = 0.0) -> LeastWithin:
    promised = promises(asked, model.wanted)
    return LeastWithin(model, 0.02, promised, asked.bind == "interval", [margin] * len(promised))


def share(rate: float, low: float, high: float) -> Rate:
    return Rate(rate=rate, low=low, high=high, n=10, requests=10)


def test_limits_become_promises_of_what_is_refused_and_kept():
    asked = limits(
        harmful={"complied_at_most": 0.05, "lost_at_most": 0.1, "neither_at_most": 0.5},
        harmless={"refused_at_most": 0.2, "complied_at_least": 0.7, "right_at_least": 0.9},
        capability={"right_drop_at_most": 0.03},
        borderline={"refused_at_most": 0.1},  # not asked
    )
    found = {(p.set, p.limit): (p.at_least, round(p.share, 6)) for p in promises(asked, made().wanted)}
    assert found == {
        ("harmful", "complied_at_most"): (True, 0.95),
        ("harmful", "lost_at_most"): (True, 0.9),
        ("harmless", "refused_at_most"): (False, 0.2),
        ("harmless", "complied_at_least"): (False, 0.3),
        ("capability", "right_drop_at_most"): (True, 0.97),
    }


def test_the_pessimistic_end_must_keep_a_promise_where_the_interval_binds():
    low, high = promises(limits(harmful={"refused_at_least": 0.9}, harmless={"refused_at_most": 0.1}), made().wanted)
    assert low.missing(share(0.95, 0.85, 0.99), by_interval=True) == pytest.approx(0.05)
    assert low.missing(share(0.95, 0.85, 0.99), by_interval=False) == pytest.approx(-0.05)
    assert high.missing(share(0.05, 0.01, 0.15), by_interval=True) == pytest.approx(0.05)


def test_the_least_intervention_refuses_just_enough_and_moves_nothing_that_brings_nothing():
    """By hand: a harmful prompt at -a is refused from coefficient a / 8 on, so 80% of them from .1; none at 0."""
    model = made()
    found = search(model, limits(harmful={"refused_at_least": 0.8})).found()
    assert found.is_kept
    assert found.coefficients[0] == pytest.approx(0.1, abs=0.03)
    assert found.coefficients[1] == pytest.approx(0, abs=0.005)
    more = search(model, limits(harmful={"refused_at_least": 0.97})).found()
    assert more.coefficients[0] > found.coefficients[0]
    sure = search(model, limits("interval", harmful={"refused_at_least": 0.8})).found()
    assert sure.is_kept
    assert sure.intervention > found.intervention


def test_limits_that_hold_already_move_nothing():
    found = search(made(), limits(harmless={"refused_at_most": 0.1})).found()
    assert found.is_kept
    assert (found.coefficients == 0).all()


def test_what_cannot_be_had_names_the_limit_that_binds_and_by_how_much():
    """No coefficient does anything: nothing is refused."""
    looked = search(made(harmful=0.0), limits(harmful={"refused_at_least": 0.6}, harmless={"refused_at_most": 0.5}))
    found = looked.found()
    assert not found.is_kept
    told = looked.why_not(found)
    assert told == "harmful.text refused_at_least 0.6 binds: it is missed by 60.0 points (predicted 0.0%)"


def test_limits_that_exclude_each_other_are_told_as_such():
    """Harmless prompts are refused as the harmful ones are: each limit can be kept alone."""
    model = made(harmful=8.0, harmless=8.0)
    asked = limits(harmful={"refused_at_least": 0.99}, harmless={"refused_at_most": 0.01})
    looked = search(model, asked)
    found = looked.found()
    assert not found.is_kept
    assert looked.why_not(found).startswith("the limits contradict each other on these models")


def test_a_margin_asks_for_as_much_more():
    asked = limits(harmful={"refused_at_least": 0.8})
    assert search(made(), asked, 0.1).found().shares[0].rate >= 0.9
    assert search(made(), asked).found().shares[0].rate < 0.9


class Bench:
    """Measures merges on prompts that need `late` more of coefficient 0 than predicted."""

    def __init__(self, model: LinearModel, late: float) -> None:
        self.model, self.late, self.tried_at = model, late, []
        self.select = SimpleNamespace(wanted=model.wanted, prompts=len(model.z))
        self.live = SimpleNamespace(blocks=("0.mlp", "1.mlp"), sources=("base",))

    def means(self, table):
        return {"base": float(np.mean([row["base"] for row in table.values()]))}

    def tried(self, policy, parameters, coefficients):
        found = np.array([row["base"] for row in coefficients.values()])
        self.tried_at.append(found[0])
        point = TradeoffPoint(
            policy=policy, parameters=parameters, coefficients=coefficients, refusal=0, capability=0, objective=0,
            forward_equivalents=1, seconds=0, chosen=False,
        )  # fmt: skip
        return Trial(point, self.model.predicted(found - np.array([self.late, 0])))


def step(model: LinearModel) -> ConvexStep:
    return ConvexStep(None, model, None, 0.02, 0.0, None)


def test_where_a_measurement_falls_short_more_is_asked_for_until_it_does_not():
    bench = Bench(made(), 0.02)
    found = within_limits(bench, step(bench.model), limits(harmful={"refused_at_least": 0.8}))
    assert found.missed is None
    assert len(bench.tried_at) > 1
    assert bench.tried_at[-1] > bench.tried_at[0]
    assert found.rows[0].measured.rate >= 0.8
    assert found.trial.point.policy == "limits"
    assert found.trial.point.chosen
    assert found.trial.point.forward_equivalents == len(bench.tried_at) * len(bench.model.z)


def test_where_no_measurement_keeps_a_limit_it_says_so(monkeypatch):
    monkeypatch.setattr(module, "MAX_TRIALS", 2)
    bench = Bench(made(), 5.0)
    found = within_limits(bench, step(bench.model), limits(harmful={"refused_at_least": 0.5}))
    assert "harmful.text refused_at_least 0.5" in found.missed
    assert found.rows[0].measured.rate == 0


def test_limits_of_which_none_can_be_predicted_choose_nothing():
    bench = Bench(made(), 0.0)
    assert within_limits(bench, step(bench.model), limits(harmful={"broken_at_most": 0.1})) is None
    assert bench.tried_at == []


def test_cells_that_select_does_not_have_are_left_to_the_report():
    bench = Bench(made(), 0.0)
    bench.select.wanted = replace(bench.model.wanted, cells=tuple((s, "own") for s, _ in bench.model.wanted.cells))
    assert within_limits(bench, step(bench.model), limits(harmful={"refused_at_least": 0.5})) is None


def test_a_promise_reads_the_share_of_its_own_cell():
    model = made()
    (promise,) = promises(limits(harmless={"refused_at_most": 0.5}), model.wanted)
    z = np.where(np.arange(len(model.z)) % 3 == 1, 1.0, -1.0)
    assert shares(model.wanted, z, [promise])[0].rate == 1
