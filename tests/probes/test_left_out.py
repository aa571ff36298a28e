"""What a block of a merge brings: the merge without it, by the same objective."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from vlsurgery.probes.left_out import MAX_BLOCKS, effect, left_out
from vlsurgery.probes.linearised import LinearModel
from vlsurgery.probes.objective import PRICES, requirements
from vlsurgery.probes.trials import Bench

CELLS = {"refuse": ("harmful", "text"), "answer": ("harmless", "text"), "keep": ("capability", "own")}
BLOCKS = [f"{layer}.{part}" for layer in range(7) for part in ("attn", "mlp")]


def wanted(rng: np.random.Generator, purposes=tuple(CELLS), count: int = 6):
    rows = [(f"{p}/{i}", f"{p}/{i}", CELLS[p], p) for p in purposes for i in range(count)]
    return requirements(rows, rng.normal(size=len(rows)))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_parts_add_up_to_the_whole_at_their_prices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    asked = wanted(rng)
    found = effect(asked, "3.mlp", 0.5, rng.normal(size=18), rng.normal(size=18))
    parts = {"refuse": found.refusal, "answer": found.answers, "keep": found.sight}
    assert found.gain.value == pytest.approx(sum(PRICES[name] * part.value for name, part in parts.items()))
    assert found.gain.low <= found.gain.value <= found.gain.high
    assert [part.n for part in parts.values()] == [6, 6, 6]


def test_a_block_that_changes_nothing_brings_nothing_and_one_that_refuses_brings_refusals() -> None:
    asked, z = wanted(np.random.default_rng(0)), np.zeros(18)
    none = effect(asked, "0.attn", 0.0, z, z)
    assert (none.gain.value, none.gain.low, none.gain.high) == (0.0, 0.0, 0.0)
    more = effect(asked, "0.attn", 0.0, z + np.repeat([2.0, 0.0, 0.0], 6), z)
    assert more.refusal.value == pytest.approx(np.log(2) - np.log1p(np.exp(-2)))
    assert (more.answers.value, more.sight.value) == (0.0, 0.0)


def test_what_nothing_asks_for_is_told_as_missing() -> None:
    asked = wanted(np.random.default_rng(0), ("refuse", "answer"))
    found = effect(asked, "0.attn", 0.0, np.zeros(12), np.ones(12))
    assert found.sight.value is None
    assert found.sight.reason == "no prompt asks for it"


class Straight:
    """A bench whose log-odds really are linear in the coefficients, with the model of them."""

    elsewhere, each = None, Bench.each

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.model = LinearModel(
            wanted(rng), np.full(len(BLOCKS), 0.2), rng.normal(size=18), rng.normal(size=(18, len(BLOCKS))),
            np.arange(len(BLOCKS)),
        )  # fmt: skip
        self.live = SimpleNamespace(blocks=BLOCKS, sources=("base",), tensor=self.tensor)
        self.select = SimpleNamespace(wanted=self.model.wanted)

    def tensor(self, table: dict[str, dict[str, float]]) -> torch.Tensor:
        return torch.tensor([[table[block]["base"]] for block in BLOCKS])

    def tried(self, *given: object) -> SimpleNamespace:
        *_, table = given
        return SimpleNamespace(table=table, z=self.model.predicted(self.tensor(table).double().numpy().ravel()))


def test_where_log_odds_are_linear_the_measurement_is_the_prediction_and_the_largest_are_measured() -> None:
    bench: Bench = Straight(1)  # type: ignore[assignment]
    merged = bench.tried("linearised", {}, {block: {"base": 0.05 * at} for at, block in enumerate(BLOCKS)})
    found = left_out(bench, merged, BLOCKS, bench.model)
    assert len(found) == MAX_BLOCKS < len(BLOCKS)
    for each in found:
        assert each.gain.value == pytest.approx(each.predicted, abs=1e-5)
    assert [each.gain.value for each in found] == sorted((each.gain.value for each in found), reverse=True)
    rest = set(BLOCKS) - {each.block for each in found}
    everything = left_out(bench, merged, [*rest], bench.model)
    assert max(each.gain.value for each in everything) <= min(each.gain.value for each in found)
