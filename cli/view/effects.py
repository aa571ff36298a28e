"""What each block of a merge brings, as a table."""

from rich.console import RenderableType

from vlsurgery.cli.view.tables import ABSENT, number, plain_table
from vlsurgery.probes.results import Estimate, TradeoffResult


def effects_table(result: TradeoffResult) -> list[RenderableType]:
    """A line a block that was left out of the merge; nothing where none was."""
    merged = result.chosen()
    coefficients = (merged.coefficients if merged else None) or {}
    if not result.effects:
        return []
    sources = list(next(iter(coefficients.values()), {}))
    title = "What blocks of the merge bring, in nats of the objective on select prompts: the merge without them"
    names = ("block", *(f"toward {s}" for s in sources), "brings", "95%", "predicted", "refusals", "answers", "sight")
    table = plain_table(title, *names)
    for each in result.effects:
        mixed = [number(coefficients.get(each.block, {}).get(source), 2) for source in sources]
        parts = [number(part.value, 2) for part in (each.refusal, each.answers, each.sight)]
        table.add_row(
            each.block, *mixed, number(each.gain.value, 2), _ends(each.gain), number(each.predicted, 2), *parts
        )
    return [table]


def _ends(found: Estimate) -> str:
    return ABSENT if found.low is None or found.high is None else f"{number(found.low, 2)} to {number(found.high, 2)}"
