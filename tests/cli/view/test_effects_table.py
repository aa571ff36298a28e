import io

import pytest
from rich.console import Console

from vlsurgery.cli.view.effects import effects_table
from vlsurgery.probes.results import BlockEffect, Estimate, TradeoffPoint, TradeoffResult


def told(value: float | None) -> Estimate:
    if value is None:
        return Estimate(value=None, reason="no prompt asks for it")
    return Estimate(value=value, low=value - 0.1, high=value + 0.1, n=9)


@pytest.fixture
def result() -> TradeoffResult:
    point = TradeoffPoint(
        policy="linearised", parameters={}, coefficients={"3.mlp": {"base": 0.4, "safety:dpo": 0.125}}, refusal=1.0,
        capability=1.0, objective=0.0, forward_equivalents=1, seconds=1.0, chosen=True,
    )  # fmt: skip
    effect = BlockEffect(
        block="3.mlp", predicted=0.7, gain=told(0.5), refusal=told(0.9), answers=told(-0.2), sight=told(None)
    )
    return TradeoffResult(points=[point], policy="linearised", effects=[effect], verdict="")


def test_a_block_has_a_line_with_its_coefficients_and_what_it_brings(result: TradeoffResult) -> None:
    console = Console(width=100, file=io.StringIO())
    (table,) = effects_table(result)
    console.print(table)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[-1].split() == ["3.mlp", "0.40", "0.12", "0.50", "0.40", "to", "0.60", "0.70", "0.90", "-0.20", "–"]


def test_nothing_is_shown_where_nothing_was_left_out(result: TradeoffResult) -> None:
    assert effects_table(result.model_copy(update={"effects": []})) == []
