"""A training run as tables: refusals, then blocks, a checkpoint a column."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.text import Text

from vlsurgery.cli.view.tables import ABSENT, number, percent, plain_table, prose
from vlsurgery.figures.blocks import block_axis
from vlsurgery.figures.wording import cell_name, interval, percent as exact_percent
from vlsurgery.probes.results import Estimate
from vlsurgery.probes.trajectory_results import BlockPoint, RefusalPoint, RunPoint, TrajectoryResult

CHECKPOINTS = 8  # as many columns as a wide terminal holds
BLOCKS = 12  # that moved most


def trajectory_tables(result: TrajectoryResult) -> list[RenderableType]:
    """Log-odds of every set at every checkpoint, rates where completions were made, the blocks that moved most, and
    what it comes to in words."""
    points = shown_points(result.points)
    parts: list[RenderableType] = [prose(f"Warning: {each}") for each in result.warnings]
    if len(points) < len(result.points):
        parts.append(prose(f"{len(points) - 1} of {len(result.points) - 1} checkpoints are shown; --csv has them all."))
    parts.append(_odds_table(result, points))
    if any(each.refused is not None and each.at > 0 for each in result.records):
        parts.append(_rates_table(result, points))
    parts.append(_blocks_table(result, points))
    openings = f"Openings that count as refusals: {'; '.join(result.openings)}."
    return [*parts, prose(openings), *map(prose, result.notes), Text(result.verdict, style="bold")]


def shown_points(points: Sequence[RunPoint]) -> list[RunPoint]:
    """The base and at most CHECKPOINTS checkpoints, evenly spaced, the last among them."""
    rest = points[1:]
    if len(rest) <= CHECKPOINTS:
        return list(points)
    return [points[0], *(rest[round(at * (len(rest) - 1) / (CHECKPOINTS - 1))] for at in range(CHECKPOINTS))]


def _head(point: RunPoint) -> str:
    return "base" if point.step is None else f"step\n{point.step}"


def _cells(result: TrajectoryResult) -> dict[tuple[str, str], dict[int, RefusalPoint]]:
    found: dict[tuple[str, str], dict[int, RefusalPoint]] = {}
    for each in result.records:
        found.setdefault((each.set, each.modality), {})[each.at] = each
    return found


def _odds_table(result: TrajectoryResult, points: Sequence[RunPoint]) -> RenderableType:
    """Two lines a set: the log-odds, and below them the drop with its interval."""
    table = plain_table("Refusal log-odds, nats; below, the drop from the base (95% interval)", "", *map(_head, points))
    for (set_, modality), row in _cells(result).items():
        known = [row.get(point.at) for point in points]
        table.add_row(cell_name(set_, modality), *(number(each.log_odds.value if each else None, 1) for each in known))
        count = max(each.log_odds.n for each in row.values())
        drops = [Text(_drop(each.drop) if each else "", style="dim") for each in known]
        table.add_row(Text(f"{count} req.", style="dim"), *drops)
    return table


def _drop(drop: Estimate) -> str:
    if drop.value is None:
        return ""
    if drop.low is None or drop.high is None:
        return number(drop.value, 1)
    return f"{number(drop.value, 1)} {number(drop.low, 1)}–{number(drop.high, 1)}"


def _rates_table(result: TrajectoryResult, points: Sequence[RunPoint]) -> RenderableType:
    table = plain_table("Refused, % (and 95% interval); below, complied", "", *map(_head, points))
    for (set_, modality), row in _cells(result).items():
        known = [row.get(point.at) for point in points]
        table.add_row(cell_name(set_, modality), *(percent(each.refused if each else None) for each in known))
        table.add_row("", *(Text(_complied(each), style="dim") for each in known))
    return table


def _complied(point: RefusalPoint | None) -> str:
    rate = point.complied if point else None
    if rate is None or rate.rate is None:
        return ABSENT
    return f"{exact_percent(rate.rate)} {interval(rate.low, rate.high)}".replace("%", "").strip()


def _blocks_table(result: TrajectoryResult, points: Sequence[RunPoint]) -> RenderableType:
    """The blocks that moved most by the last checkpoint, in the order of the model."""
    last = result.points[-1].at
    final = {each.block: each.relative or 0.0 for each in result.blocks if each.at == last}
    most = sorted(final, key=lambda block: -final[block])[:BLOCKS]
    places = block_axis(most).places
    moved: dict[tuple[str, int], BlockPoint] = {(each.block, each.at): each for each in result.blocks}
    title = f"Change of the {len(most)} blocks that moved most, % of the base's norm (of their final change)"
    table = plain_table(title, "block", *(_head(point) for point in points[1:]))
    for block in sorted(most, key=lambda block: places[block].x):
        table.add_row(block, *(_change(moved.get((block, point.at))) for point in points[1:]))
    return table


def _change(each: BlockPoint | None) -> Text:
    if each is None or each.relative is None:
        return Text(ABSENT)
    share = "" if each.share is None else f" ({100 * each.share:.0f}%)"
    return Text.assemble(f"{100 * each.relative:.3g}", (share, "dim"))
