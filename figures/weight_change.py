"""What changed in the weights, by block or by tensor, and how the two deltas lie to each other, with what they share by
construction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import BlockAxis, Place, block_axis, wanted_blocks
from vlsurgery.figures.choice import one_of
from vlsurgery.figures.parts import component_order
from vlsurgery.figures.wording import number, percent
from vlsurgery.surgery.results import DeltaMetrics, DiffResult, Null, PairMetrics

Delta = Literal["vl", "safety"]
INDEPENDENT = -0.5
_NAMES = {"vl": "adaptation", "safety": "safety tuning"}
_ROLES = {"vl": "adapted", "safety": "safety"}
_SYMBOLS = {"attention": "circle", "MLP": "square", "other": "diamond"}


LEVELS = ("block", "tensor")


@dataclass(frozen=True)
class BlockChange:
    """The relative change of a block, or of one tensor, under each delta, and the cosine between the deltas; None where
    it can't be had. null: where the cosine lies if the two moves have nothing to do with each other."""

    place: Place
    vl: float | None
    safety: float | None
    cosine: float | None
    sign_conflict: float | None
    null: Null | None = None

    @property
    def stands_out(self) -> bool:
        """Whether the cosine is outside of its null."""
        return self.cosine is not None and self.null is not None and not self.null.low <= self.cosine <= self.null.high


@dataclass(frozen=True)
class WeightChangeInfo:
    """Every block, or every tensor, of the diff once, in the order of the axis."""

    blocks: tuple[BlockChange, ...]
    axis: BlockAxis
    level: str = "block"

    @property
    def has_between(self) -> bool:
        return any(block.cosine is not None for block in self.blocks)


def _relative(metrics: DeltaMetrics | None) -> float | None:
    return None if metrics is None else metrics.relative


def _change(metrics: PairMetrics, place: Place) -> BlockChange:
    return BlockChange(
        place=place,
        vl=_relative(metrics.vl),
        safety=_relative(metrics.safety),
        cosine=metrics.between.cosine if metrics.between else None,
        sign_conflict=metrics.between.sign_conflict if metrics.between else None,
        null=metrics.between.cosine_null if metrics.between else None,
    )


def compute(
    diff: DiffResult, level: str = "block", layers: Sequence[int] | None = None, top: int | None = None
) -> WeightChangeInfo:
    """Take the summaries of blocks, or the metrics of tensors; a metric that is lacking stays None. See `plot`."""
    one_of("level", level, LEVELS)
    sizes = {summary.key: _relative(summary.metrics.vl) or 0.0 for summary in diff.blocks}
    kept = wanted_blocks(sizes, layers, top)
    axis = block_axis(kept)
    if level == "block":
        changes = [_change(each.metrics, axis.places[each.key]) for each in diff.blocks if each.key in axis.places]
    else:
        changes = [change for block in kept for change in _tensors(diff, axis.places[block], axis.bar_width)]
    return WeightChangeInfo(tuple(sorted(changes, key=lambda change: change.place.x)), axis, level)


def _tensors(diff: DiffResult, place: Place, width: float) -> list[BlockChange]:
    """A block's tensors, side by side in its place."""
    pairs = sorted(
        (pair for pair in diff.pairs if pair.block == place.block), key=lambda p: component_order(p.component)
    )
    step = width / max(1, len(pairs))
    return [
        _change(
            pair.metrics,
            Place(
                pair.component if pair.layer is None else f"{pair.layer}.{pair.component}",
                place.layer,
                place.kind,
                place.x - width / 2 + (at + 0.5) * step,
            ),
        )
        for at, pair in enumerate(pairs)
    ]


def _hover(change: BlockChange) -> str:
    lines = [
        f"moved by {_small(value)} of its norm in {_NAMES[delta]}"
        for delta, value in (("vl", change.vl), ("safety", change.safety))
        if value is not None
    ]
    if change.cosine is not None:
        null = change.null
        by_chance = "" if null is None else f"; unrelated moves give {number(null.low, 3)} to {number(null.high, 3)}"
        lines.append(f"cosine between the two deltas {number(change.cosine, 3)}{by_chance}")
    if change.sign_conflict is not None:
        lines.append(f"the deltas point opposite ways in {percent(change.sign_conflict)} of the entries both changed")
    return theme.hover(f"{change.place.block} ({change.place.label})", lines)


def _series(info: WeightChangeInfo, measure: str, kind: str, name: str, colour: str, legend: bool) -> go.Scatter:
    rows = [change for change in info.blocks if change.place.kind == kind and getattr(change, measure) is not None]
    layered = kind != "other"
    return go.Scatter(
        name=name,
        legendgroup=name,
        showlegend=legend,
        mode="lines+markers" if layered else "markers",
        x=[change.place.x for change in rows],
        y=[getattr(change, measure) for change in rows],
        line={"color": colour, "width": 1.5, "dash": "dot" if kind == "MLP" else "solid"},
        marker={"symbol": _SYMBOLS[kind], "size": 8, "color": colour},
        hovertext=[_hover(change) for change in rows],
        hoverinfo="text",
    )


def _add_relative(figure: go.Figure, info: WeightChangeInfo) -> None:
    for delta in ("vl", "safety"):
        for kind in ("attention", "MLP", "other"):
            shown = "other, and outside layers" if kind == "other" else kind
            name = f"{_NAMES[delta]}: {shown}"
            trace = _series(info, delta, kind, name, theme.role_colour(_ROLES[delta]), legend=True)
            if trace.x:
                figure.add_trace(trace, row=1, col=1)
    figure.update_yaxes(title_text="change over norm", tickformat=".2~%", rangemode="tozero", row=1, col=1)


def _nulls(info: WeightChangeInfo) -> go.Bar:
    """A band for each cosine: where it lies if the two moves have nothing to do with each other."""
    known = [(change, change.null) for change in info.blocks if change.null is not None and change.cosine is not None]
    width = info.axis.bar_width if info.level == "block" else info.axis.bar_width / 4
    return go.Bar(
        name="null: what unrelated moves share through adapted",
        x=[change.place.x for change, _ in known],
        base=[null.low for _, null in known],
        y=[null.high - null.low for _, null in known],
        width=width,
        marker={"color": theme.tint(theme.FAINT, 0.45), "line": {"width": 1, "color": theme.FAINT}},
        hoverinfo="skip",
    )


def _cosine_range(info: WeightChangeInfo) -> list[float]:
    """What the cosines and their nulls take, with some room; all that is possible where some are far from 0."""
    known = [change for change in info.blocks if change.cosine is not None]
    values = [change.cosine or 0.0 for change in known]
    values += [bound for change in known if change.null for bound in (change.null.low, change.null.high)]
    if min(values, default=-1.0) < INDEPENDENT / 2:
        return [-1.05, 1.05]
    room = 0.15 * max(max(values) - min(values), 0.02)
    return [min(values) - room, max(values) + room]


def _add_between(figure: go.Figure, info: WeightChangeInfo) -> None:
    nulls = _nulls(info)
    if nulls.x:
        figure.add_trace(nulls, row=2, col=1)
    for kind in ("attention", "MLP", "other"):
        trace = _series(info, "cosine", kind, f"cosine: {kind}", theme.KIND_COLOURS[kind], legend=False)
        if trace.x:
            figure.add_trace(trace, row=2, col=1)
    line = {"color": theme.FAINT, "width": 1.2, "dash": "dash"}
    note = {"font": {"size": 11.5, "color": theme.MUTED}}
    figure.add_hline(y=0, line={"color": theme.MUTED, "width": 1}, row=2, col=1)
    if _cosine_range(info)[0] < INDEPENDENT:
        figure.add_hline(
            y=INDEPENDENT,
            line=line,
            row=2,
            col=1,
            annotation={"text": f"{number(INDEPENDENT, 1)}: three unrelated models", **note},
            annotation_position="bottom left",
        )
    figure.update_yaxes(title_text="cosine", range=_cosine_range(info), row=2, col=1)


def _title(info: WeightChangeInfo) -> str:
    moved = [change for change in info.blocks if change.vl is not None]
    if not moved:
        return "How far each block moved"
    furthest = max(moved, key=lambda change: change.vl or 0)
    return f"Adaptation moved {furthest.place.block} furthest: by {_small(furthest.vl or 0)} of its norm"


def _small(share: float) -> str:
    """A share in per cent, with a decimal where it is small."""
    return percent(share) if share >= 0.1 else f"{number(100 * share, 1)}%"


def said(info: WeightChangeInfo) -> str:
    """How many cosines lie outside of their nulls, in words; nothing without nulls."""
    known = [change for change in info.blocks if change.null is not None and change.cosine is not None]
    if not known:
        return ""
    above = sum(change.stands_out and (change.cosine or 0) > change.null.high for change in known if change.null)
    below = sum(change.stands_out and (change.cosine or 0) < change.null.low for change in known if change.null)
    noun = "blocks" if info.level == "block" else "tensors"
    return (
        f"Of {len(known)} {noun}, the cosine of the two deltas lies above its null in {above} and below it in {below};"
        " each is taken alone."
    )


def draw(info: WeightChangeInfo) -> go.Figure:
    """Relative change above; below, where there is a safety delta, its cosine with the VL delta."""
    rows = 2 if info.has_between else 1
    heights = [0.56, 0.44] if rows == 2 else [1.0]
    figure = make_subplots(rows=rows, cols=1, shared_xaxes=True, vertical_spacing=0.13, row_heights=heights)
    _add_relative(figure, info)
    subtitle = (
        "Norm of a block's change over the norm it had before. Weight change hardly says where safety went: large"
        " changes may cost nothing, and small ones may cost the refusal."
    )
    theme.frame(figure, _title(info), subtitle, 430 if rows == 2 else 270, legend_rows=3, panels=True)
    theme.panel_title(figure, "Relative change", 1, 1)
    if rows == 2:
        _add_between(figure, info)
        theme.panel_title(figure, "Cosine between the two deltas: negative by construction, both contain adapted", 2, 1)
    for row in range(1, rows + 1):
        info.axis.show(figure, row=row, col=1)
    if rows == 2:
        figure.update_xaxes(title_text="", row=1, col=1)
    return figure


def rows(info: WeightChangeInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a block."""
    return [
        {
            "block": each.place.block, "layer": each.place.layer, "adaptation, change over norm": each.vl,
            "safety tuning, change over norm": each.safety, "cosine of the deltas": each.cosine,
            "null low": each.null.low if each.null else None, "null high": each.null.high if each.null else None,
            "sign conflict": each.sign_conflict,
        }
        for each in info.blocks
    ]  # fmt: skip


def plot(
    diff: DiffResult,
    level: str = "block",
    layers: Sequence[int] | None = None,
    top: int | None = None,
    dark: bool = False,
) -> go.Figure:
    """What changed in the weights.

    level: "block", or "tensor" for every tensor by itself. layers, top: only these layers, and of their blocks those
    that adaptation moved furthest. dark: for dark paper. Raises SurgeryError where there is nothing of that name.
    """
    return theme.shown(draw(compute(diff, level, layers, top)), dark)
