"""Results as tables for a terminal: pure functions from a result to something that rich prints.

Every table is readable at 100 columns. A number that could not be had is a dash; it never becomes 0.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from rich import box
from rich.console import JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from vlsurgery.figures.wording import (
    interval,
    modality_column,
    percent as exact_percent,
    sayable,
)
from vlsurgery.probes.results import (
    ProbeResult,
    Rate,
    SeparationRow,
    TradeoffResult,
)
from vlsurgery.surgery.results import (
    AnatomyResult,
    ComparisonResult,
    DeltaMetrics,
    DiffResult,
    Pair,
    Summary,
    UnmatchedTensor,
)

ABSENT = "–"
BAR_WIDTH = 6
MAX_PLACES = 6  # behind the point; smaller numbers have an exponent


def plain_table(title: str, *columns: str, left: int = 1, bars: Sequence[int] = ()) -> Table:
    """An empty table of the house's style.

    The first `left` columns are text and wrapped where room is short; the others are numbers and never wrapped. `bars`
    names those whose numbers have a bar behind them.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.show_edge = table.pad_edge = False
    table.padding = (0, 1, 0, 0)
    for i, name in enumerate(columns):
        justify: JustifyMethod = "left" if i < left or i in bars else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=i >= left, vertical="bottom")
    return table


def prose(text: str) -> Text:
    """Text that is wrapped at the terminal's width; a plain string, such as a path, is not."""
    return Text(text)


def number(value: float | None, digits: int = 3) -> str:
    return ABSENT if value is None else f"{round(value, digits) + 0.0:.{digits}f}"  # no "-0.000"


def significant(value: float | None, digits: int = 3) -> str:
    """A number below 1 with so many significant digits, a larger one with so many behind the point."""
    if value is None or value == 0 or abs(value) >= 1 or not math.isfinite(value):
        return number(value, digits)
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{places}f}" if places <= MAX_PLACES else f"{value:.{digits - 1}e}"


def bar(value: float | None, largest: float, width: int = BAR_WIDTH) -> str:
    """A bar of eighths of a character, as long as `value` is large beside `largest`; empty where there is no value."""
    if value is None or value <= 0 or largest <= 0:
        return " " * width
    eighths = max(1, round(min(1.0, value / largest) * width * 8))
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].rstrip()).ljust(width)


def with_bar(value: float | None, largest: float, digits: int = 3) -> str:
    return f"{number(value, digits):>{digits + 3}} {bar(value, largest)}"


def largest(values: Iterable[float | None]) -> float:
    return max((value for value in values if value is not None), default=0.0)


def diff_table(result: DiffResult) -> Table:
    """What changed in the text stack, layer by layer, then the blocks outside layers and the other towers."""
    blocks = {summary.key: summary for summary in result.blocks}
    layers = [summary for summary in result.layers if summary.tower == "text" and summary.layer is not None]
    rest = [summary for summary in result.blocks if summary.layer is None or summary.key.endswith(".other")]
    rest += [summary for summary in result.towers if summary.tower != "text" and summary.key not in blocks]
    scales = (
        largest(_relative(summary.metrics.vl) for summary in result.blocks),
        largest(_relative(summary.metrics.safety) for summary in result.blocks),
    )
    has_safety = any(summary.metrics.safety for summary in (*result.blocks, *result.towers))
    names = ["layer", "attention", "MLP"]
    if has_safety:
        names += ["safety:\nattention", "safety:\nMLP", "delta\ncosine", "of it\nnoise", "sign\nconflict"]
    title = "Relative change of the weights, base to adapted" + (" and adapted to safety" if has_safety else "")
    table = plain_table(title, *names, bars=(1, 2, 3, 4))
    for layer in layers:
        halves = [blocks.get(f"{layer.key}.{half}") for half in ("attn", "mlp")]
        table.add_row(layer.key, *_change_cells(halves, layer, scales, has_safety))
    table.add_section()
    for summary in rest:
        table.add_row(summary.key, *_change_cells([summary], summary, scales, has_safety))
    return table


def _change(metrics: DeltaMetrics | None, scale: float) -> str:
    value = _relative(metrics)
    return f"{significant(value):>8} {bar(value, scale)}"


def _change_cells(
    blocks: Sequence[Summary | None], whole: Summary, scales: tuple[float, float], has_safety: bool
) -> list[str]:
    """Relative changes of one or two blocks, and how the two deltas of `whole` relate."""
    gap = [""] * (2 - len(blocks))
    cells = [_change(block.metrics.vl if block else None, scales[0]) for block in blocks] + gap
    if not has_safety:
        return cells
    cells += [_change(block.metrics.safety if block else None, scales[1]) for block in blocks] + gap
    between = whole.metrics.between
    if between is None:
        return [*cells, ABSENT, ABSENT, ABSENT]
    noise = between.cosine_null.mean if between.cosine_null else None
    return [*cells, number(between.cosine), number(noise), number(between.sign_conflict)]


def _relative(metrics: DeltaMetrics | None) -> float | None:
    return metrics.relative if metrics else None


def shape_table(result: DiffResult) -> list[Table]:
    """The shape of the deltas, layer by layer: how few directions they take, and how many of these are new. None where
    spectra were not asked for.

    Of a layer's matrices, means weighed by the squared size of their deltas.
    """
    pairs = [pair for pair in result.pairs if pair.tower == "text" and pair.layer is not None]
    deltas = [delta for delta in ("vl", "safety") if any(_spectral(pair, delta) for pair in pairs)]
    if not deltas:
        return []
    names = ["layer"]
    for delta in deltas:
        prefix = "safety:\n" if delta == "safety" else ""
        names += [f"{prefix}in 8\ndirections", f"{prefix}stable\nrank", f"{prefix}intruder\nshare"]
    names += ["shared\ndirections"] if len(deltas) == 2 else []
    bars = [1 + 3 * place for place in range(len(deltas))]
    table = plain_table("Shape of the deltas: share of their squared size in 8 directions", *names, bars=bars)
    for layer in sorted({pair.layer for pair in pairs if pair.layer is not None}):
        members = [pair for pair in pairs if pair.layer == layer]
        cells = [cell for delta in deltas for cell in _shape_cells(members, delta)]
        shared = [
            (each.subspace_left + each.subspace_right) / 2
            for pair in members
            if (each := pair.metrics.between) and each.subspace_left is not None and each.subspace_right is not None
        ]
        cells += [number(sum(shared) / len(shared) if shared else None)] if len(deltas) == 2 else []
        table.add_row(str(layer), *cells)
    return [table]


def _spectral(pair: Pair, delta: str) -> DeltaMetrics | None:
    """The metrics of one delta of a pair whose spectrum was measured."""
    found: DeltaMetrics | None = getattr(pair.metrics, delta)
    return found if found is not None and found.energy is not None else None


def _shape_cells(pairs: Sequence[Pair], delta: str) -> list[str]:
    found = [(math.prod(pair.shape) * each.rms**2, each) for pair in pairs if (each := _spectral(pair, delta))]

    def mean(value_of: Callable[[DeltaMetrics], float | None]) -> float | None:
        held = [(weight, value) for weight, each in found if (value := value_of(each)) is not None]
        whole = sum(weight for weight, _ in held)
        return sum(weight * value for weight, value in held) / whole if whole else None

    few = mean(lambda each: each.energy["8"] if each.energy else None)
    return [
        with_bar(few, 1.0),
        number(mean(lambda each: each.stable_rank), 1),
        number(mean(lambda each: each.intruder_share)),
    ]


def probe_table(result: ProbeResult) -> Table:
    """Per layer, where directions are shown: separation of each role, drift of the direction, and where refusals went.

    Roles are shown with an ordinary picture where they see, else in words.
    """
    shown = result.shown_at
    position = shown[0] if shown else next((row.position for row in result.records), "")
    modality = {row.role: row.modality for row in result.records if row.modality in ("text", "benign")}  # the last one
    rows = {
        (row.role, row.layer): row
        for row in result.records
        if row.position == position and row.modality == modality.get(row.role)
    }
    drift = {
        row.layer: row.cosine
        for row in result.cosines
        if (row.role, row.modality, row.position) == ("adapted", modality.get("adapted"), position)
    }
    gains = {block: row.gain for block, row in result.block_gains().items()}
    scale = largest(gains.values())
    layers = sorted({layer for _, layer in rows})
    heads = [f"AUROC\n{role}\n{modality_column(seen)}" for role, seen in modality.items()]
    drifted = f"cosine to base\nadapted\n{modality_column(modality.get('adapted', 'text'))}"
    names = ["layer", *heads, drifted, "gain\nattention", "gain\nMLP"]
    place = "the last instruction token" if position == "instruction" else f"token {position} of the prompt"
    title = f"Telling harmful from harmless at {place}; gain of moving a block to the base, in nats"
    table = plain_table(title, *names, bars=(len(names) - 2, len(names) - 1))
    for layer in layers:
        cells = [_auroc(rows.get((role, layer))) for role in modality]
        blocks = [with_bar(gains.get(f"{layer}.{half}"), scale, 2) for half in ("attn", "mlp")]
        table.add_row(str(layer), *cells, number(drift.get(layer), 2), *blocks)
    table.add_section()
    inside = {f"{layer}.{half}" for layer in layers for half in ("attn", "mlp")}
    for block, gain in gains.items():
        if block not in inside:
            table.add_row(block, *[""] * len(modality), "", with_bar(gain, scale, 2))
    return table


def _auroc(row: SeparationRow | None) -> str:
    return number(row.auroc.value if row else None, 2)


def completeness_line(result: ProbeResult) -> str:
    """The two checks of the attribution map, in words."""
    checks = result.completeness
    if checks is None:
        return "Attribution: not measured (" + ("; ".join(result.notes) or "no reason given") + ")."
    error = ABSENT if checks.error is None else f"{checks.error:.0%}"
    return (
        f"Attribution: the path map sums to {checks.total:.2f} nats, the measured change from adapted to graft is "
        f"{checks.measured:.2f} (off by {error}); rank correlation of the endpoint map with transplants "
        f"{number(checks.rank_correlation, 2)}."
    )


def percent(rate: Rate | None) -> Text:
    """A rate with its interval, in percent: "98 94–99". What isn't all is never rounded to 100; from a single request
    nothing is shown."""
    rate = sayable(rate) if rate else None
    if rate is None or rate.rate is None:
        return Text(ABSENT)
    bounds = interval(rate.low, rate.high).replace("%", "")
    return Text.assemble(exact_percent(rate.rate).removesuffix("%"), (f" {bounds}" if bounds else "", "dim"))


def coefficients_table(result: TradeoffResult) -> Table:
    """How much of base and of safety goes into each block of the merge."""
    point = result.chosen()
    coefficients = (point.coefficients if point else None) or {}
    sources = list(dict.fromkeys(source for each in coefficients.values() for source in each))
    table = plain_table(f"Coefficients ({result.policy})", "block", *[f"toward {s}" for s in sources])
    for block, each in coefficients.items():
        table.add_row(block, *[with_bar(each.get(source), 1.0, 2) for source in sources])
    return table


def tradeoff_table(result: TradeoffResult) -> Table:
    """The best point of every policy, on `select` prompts."""
    names = ("policy", "refused", "capability kept", "objective", "forward passes", "seconds")
    table = plain_table("Chosen on select prompts", *names)
    for point in result.points:
        if point.chosen:
            figures = (number(point.refusal, 2), number(point.capability, 2), number(point.objective, 2))
            table.add_row(point.policy, *figures, f"{point.forward_equivalents:,}", f"{point.seconds:.1f}")
    return table


def unmatched_line(unmatched: Sequence[UnmatchedTensor]) -> str:
    """How many tensors found no partner, by role and reason."""
    if not unmatched:
        return "Every tensor found its partner."
    counts = Counter((tensor.role, tensor.reason) for tensor in unmatched)
    parts = "; ".join(f"{count} of {role} ({reason})" for (role, reason), count in counts.items())
    return f"{len(unmatched)} tensors without partner: {parts}."


def comparison_tables(result: ComparisonResult) -> list[RenderableType]:
    """How much of each checkpoint pairs, tower by tower; which tensors do not, and why."""
    heads = ("checkpoint", "tensors", "paired", "parameters", "paired")
    checkpoints = plain_table(f"Paired with {result.like}", *heads)
    for role, shared in result.roles.items():
        checkpoints.add_row(
            role,
            f"{shared.tensors:,}",
            f"{shared.paired:,}",
            f"{shared.parameters:,}",
            f"{shared.paired_parameters:,}",
        )
    towers = plain_table("Pairs", "tower", "pairs", "whole tensors", "parts of tensors", "in added layers")
    for tower in dict.fromkeys(pair.tower for pair in result.pairs):
        pairs = [pair for pair in result.pairs if pair.tower == tower]
        whole = sum(all(isinstance(name, str) for name in pair.names.values()) for pair in pairs)
        added = sum(pair.added for pair in pairs)
        towers.add_row(tower, str(len(pairs)), str(whole), str(len(pairs) - whole), str(added))
    return [checkpoints, towers, prose(unmatched_line(result.unmatched)), *map(prose, result.notes)]


def anatomy_tables(result: AnatomyResult) -> list[RenderableType]:
    """Towers, then every kind of tensor with the layers that have it."""
    towers = plain_table(
        f"{result.model_type or 'model of unknown type'}, {result.parameters:,} parameters", *_TOWER_HEADS
    )
    for tower in result.towers:
        towers.add_row(tower.tower, str(tower.layers), str(tower.tensors), f"{tower.parameters:,}")
    kinds: dict[tuple[str, str, str, str], list[int | None]] = {}
    for tensor in result.tensors:
        shape = " x ".join(map(str, tensor.shape))
        kinds.setdefault((tensor.tower, tensor.component, shape, tensor.dtype), []).append(tensor.layer)
    parts = plain_table("Tensors", "tower", "component", "shape", "dtype", "layers", left=4)
    for (tower_name, component, shape, dtype), layers in kinds.items():
        parts.add_row(tower_name, component, shape, dtype, layer_range(layers))
    dtypes = ", ".join(f"{count} {name}" for name, count in result.dtypes.items())
    ties = "tied to the embedding" if result.tied else "its own"
    facts = f"{result.bytes / 1e6:,.1f} MB; tensors: {dtypes}; head: {ties}; quantised: {result.quantised or 'no'}"
    return [towers, parts, facts]


_TOWER_HEADS = ("tower", "layers", "tensors", "parameters")


def layer_range(layers: Sequence[int | None]) -> str:
    """Layer numbers as ranges: "0-3, 5"; empty for what stands outside layers."""
    numbers = sorted({layer for layer in layers if layer is not None})
    ranges: list[list[int]] = []
    for layer in numbers:
        if ranges and layer == ranges[-1][1] + 1:
            ranges[-1][1] = layer
        else:
            ranges.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
