"""What the merge puts into each block, and what every point that was tried keeps of refusals and of capability."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import BlockAxis, Place, block_axis, wanted_blocks
from vlsurgery.figures.choice import chosen
from vlsurgery.figures.wording import listed, number, percent, signed
from vlsurgery.probes.results import TradeoffPoint, TradeoffResult

_POLICY_ROLES = {"linearised": "merged", "frontier": "merged", "limits": "merged", "uniform": "merged:uniform"}
_POLICY_COLOURS = {"fit": "#8a5a00", "attribution": "#4b3f92", "weights": "#33415c"}
_POLICY_SYMBOLS = {
    "linearised": "circle",
    "uniform": "square",
    "frontier": "circle",
    "limits": "circle",
    "fit": "circle-open",
    "attribution": "diamond",
    "weights": "triangle-up",
}
_MAYBE_NOTHING = 0.005  # an interval that begins up to here holds 0
_PALE = 0.35
_TOLD = 8  # of the points at one place, how many hovering names
_SAME = 3  # decimals in which points that stand under one marker agree


@dataclass(frozen=True)
class BlockCoefficient:
    """How much of each other model goes into one block.

    values: target -> coefficient. intervals: target -> 95% interval over requests, of the targets that have one.
    """

    place: Place
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def may_be_nothing(self, target: str) -> bool:
        """Whether a target's interval holds 0."""
        return target in self.intervals and self.intervals[target][0] <= _MAYBE_NOTHING


@dataclass(frozen=True)
class CoefficientsInfo:
    """The merged point's coefficients block by block, and every point tried, in the order they were; those at other
    prices are in `figures.frontier`.

    merged: the chosen point of the merged policy; None if none is marked. targets: the models that blocks move toward.
    blocks: empty where that point holds no coefficients per block.
    """

    policy: str
    merged: TradeoffPoint | None
    targets: tuple[str, ...]
    blocks: tuple[BlockCoefficient, ...]
    axis: BlockAxis
    points: tuple[TradeoffPoint, ...]


def compute(
    tradeoff: TradeoffResult,
    layers: Sequence[int] | None = None,
    policies: Sequence[str] | None = None,
    top: int | None = None,
) -> CoefficientsInfo:
    """Find the point that was merged and lay its coefficients out on the axis of blocks. See `plot` for what can be
    chosen."""
    merged = tradeoff.chosen()
    coefficients = {k: v for k, v in ((merged.coefficients if merged else None) or {}).items() if k != "default"}
    shown = wanted_blocks({block: sum(values.values()) for block, values in coefficients.items()}, layers, top)
    axis = block_axis(shown)
    intervals = (merged.intervals if merged else None) or {}
    blocks = [
        BlockCoefficient(place, coefficients[block], intervals.get(block, {})) for block, place in axis.places.items()
    ]
    blocks.sort(key=lambda block: block.place.x)
    targets = tuple(dict.fromkeys(target for block in blocks for target in block.values))
    tried = [point for point in tradeoff.points if point.chosen or point.policy != "frontier"]
    of_policy = chosen("policies", policies, (point.policy for point in tried))
    points = tuple(point for point in tried if point.policy in of_policy)
    return CoefficientsInfo(tradeoff.policy, merged, targets, tuple(blocks), axis, points)


def policy_colour(policy: str) -> str:
    return _POLICY_COLOURS.get(policy) or theme.role_colour(_POLICY_ROLES.get(policy, policy))


def _interval_words(block: BlockCoefficient, target: str) -> str:
    if target not in block.intervals:
        return ""
    low, high = block.intervals[target]
    return f" ({number(low)} to {number(high)}{', may be 0' if block.may_be_nothing(target) else ''})"


def _coefficient_hover(block: BlockCoefficient) -> str:
    lines = [
        f"{number(value)} toward {target}{_interval_words(block, target)}" for target, value in block.values.items()
    ]
    kept = 1 - sum(block.values.values())
    return theme.hover(f"{block.place.block} ({block.place.label})", [*lines, f"{number(kept)} stays adapted"])


def _add_coefficients(figure: go.Figure, info: CoefficientsInfo) -> None:
    """Stacked bars a block, one a target; MLP bars are hatched, what may be 0 is pale."""
    shapes = ["/" if block.place.kind == "MLP" else "" for block in info.blocks]
    for target, colour in theme.source_colours(info.targets).items():
        figure.add_trace(
            go.Bar(
                name=theme.safe(f"toward {target}"),
                x=[block.place.x for block in info.blocks],
                y=[block.values.get(target) for block in info.blocks],
                width=info.axis.bar_width,
                marker={
                    "color": [theme.tint(colour, _PALE) if b.may_be_nothing(target) else colour for b in info.blocks],
                    "line": {"width": 0},
                    "pattern": {
                        "shape": shapes,
                        "fillmode": "overlay",
                        "size": 6,
                        "solidity": 0.22,
                        "fgcolor": theme.PAPER,
                    },
                },
                hovertext=[_coefficient_hover(block) for block in info.blocks],
                hoverinfo="text",
            ),
            row=1,
            col=1,
        )
    figure.update_yaxes(title_text="coefficient", rangemode="tozero", row=1, col=1)
    info.axis.show(figure, row=1, col=1)


def parameters_words(point: TradeoffPoint) -> str:
    """What makes a point, in words: "base 0.30, safety 0.20"."""
    return ", ".join(f"{name} {value:.3g}" for name, value in point.parameters.items()) or "no parameters"


def _cell_lines(point: TradeoffPoint) -> list[str]:
    """What the point does in each cell: "harmful benign: refused 92%"."""
    lines = []
    for cell in point.cells:
        done = [(name, getattr(cell, name)) for name in ("refused", "kept") if getattr(cell, name) is not None]
        lines.append(f"{cell.set} {cell.modality}: {', '.join(f'{name} {percent(rate)}' for name, rate in done)}")
    return lines


def _point_hover(point: TradeoffPoint) -> str:
    lines = [
        parameters_words(point),
        f"refusal kept {percent(point.refusal)}, capability kept {percent(point.capability)}",
        f"objective {signed(point.objective, 3)}{' nats' if point.cells else ''}",
        *_cell_lines(point),
        f"{point.forward_equivalents:,} forward passes, {point.seconds:.1f} s",
    ]
    return theme.hover(f"{point.policy}{' (chosen)' if point.chosen else ''}", lines)


def _policy_trace(points: list[TradeoffPoint], policy: str, chosen: bool) -> go.Scatter:
    colour = policy_colour(policy)
    marker: dict[str, object] = {
        "symbol": _POLICY_SYMBOLS.get(policy, "cross"),
        "size": 14 if chosen else 7,
        "color": colour if chosen else theme.tint(colour, 0.45),
        "line": {"width": 2 if chosen else 0, "color": theme.INK},
    }
    return go.Scatter(
        name=theme.safe(f"{policy}, {'chosen' if chosen else 'tried'}"),
        mode="markers",
        x=[point.capability for point in points],
        y=[point.refusal for point in points],
        marker=marker,
        hovertext=[_point_hover(point) for point in points],
        hoverinfo="text",
        cliponaxis=False,
    )


def tied(points: Sequence[TradeoffPoint]) -> list[tuple[TradeoffPoint, ...]]:
    """Points that stand at one place, where several do; the largest group first."""
    places: dict[tuple[float, float], list[TradeoffPoint]] = {}
    for point in points:
        places.setdefault((round(point.capability, _SAME), round(point.refusal, _SAME)), []).append(point)
    return sorted((tuple(found) for found in places.values() if len(found) > 1), key=len, reverse=True)


def _counts(groups: Sequence[tuple[TradeoffPoint, ...]]) -> go.Scatter:
    """How many points a marker stands for, to its lower left, with all of them on hovering."""
    told = [
        theme.hover(
            f"{len(points)} merges stand here",
            [f"{point.policy}: {parameters_words(point)}" for point in points[:_TOLD]]
            + ([f"and {len(points) - _TOLD} more"] if len(points) > _TOLD else []),
        )
        for points in groups
    ]
    return go.Scatter(
        name="how many stand at one place",
        mode="text",
        x=[points[0].capability for points in groups],
        y=[points[0].refusal for points in groups],
        text=[f"{len(points)}×  " for points in groups],
        textposition="bottom left",
        textfont={"size": 11.5, "color": theme.INK},
        hovertext=told,
        hoverinfo="text",
        showlegend=False,
        cliponaxis=False,
    )


def _add_points(figure: go.Figure, info: CoefficientsInfo) -> None:
    """All points tried, faint; the best ones large and ringed, drawn last so that nothing covers them; and how many
    stand under one marker."""
    policies = list(dict.fromkeys(point.policy for point in info.points))
    for best in (False, True):
        for policy in policies:
            points = [p for p in info.points if p.policy == policy and p.chosen == best]
            if points:
                figure.add_trace(_policy_trace(points, policy, best), row=1, col=2)
    if groups := tied(info.points):
        figure.add_trace(_counts(groups), row=1, col=2)
    for axis in (figure.update_xaxes, figure.update_yaxes):
        axis(range=[-0.02, 1.03], tickformat=".0%", row=1, col=2)
    figure.update_xaxes(title_text="harmless answers kept, greedy", showgrid=True, row=1, col=2)
    figure.update_yaxes(title_text="harmful requests refused", row=1, col=2)


def _title(info: CoefficientsInfo) -> str:
    targets = [target for target in info.targets if any(block.values.get(target) for block in info.blocks)]
    if not targets:
        return "What was tried on the way to the merge"
    return f"What goes into each block from {listed(targets)}, and what it buys"


def draw(info: CoefficientsInfo) -> go.Figure:
    """Coefficients on the left, the trade-off on `select` prompts on the right."""
    figure = make_subplots(rows=1, cols=2, column_widths=[0.58, 0.42], horizontal_spacing=0.11)
    _add_coefficients(figure, info)
    _add_points(figure, info)
    pale = any(block.may_be_nothing(target) for block in info.blocks for target in info.targets)
    subtitle = (
        "Left bar of a pair: attention; hatched right bar: MLP; what is missing to 1 stays adapted. On the right, each"
        f" point is a merge that was tried, measured on select prompts; up and right is better. Merged: {info.policy}."
        f"{' Pale: may be 0 by its interval.' if pale else ''}"
    )
    theme.frame(figure, _title(info), subtitle, plot_height=340, legend_rows=2, panels=True)
    figure.update_layout(barmode="stack")
    figure.update_xaxes(title_text="layer; at the ends, blocks outside layers", row=1, col=1)
    theme.panel_title(figure, "Coefficient of each block", 1, 1)
    theme.panel_title(figure, "Trade-off of every point tried", 1, 2)
    return figure


def rows(info: CoefficientsInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn: a record a block, then a record a point tried."""
    told: list[dict[str, str | int | float | None]] = []
    for block in info.blocks:
        record: dict[str, str | int | float | None] = {"what": "coefficient", "block": block.place.block}
        for target, value in block.values.items():
            low, high = block.intervals.get(target, (None, None))
            record |= {f"toward {target}": value, f"toward {target} low": low, f"toward {target} high": high}
        told.append(record)
    for point in info.points:
        told.append(
            {
                "what": "point", "policy": point.policy, "parameters": parameters_words(point),
                "chosen": "yes" if point.chosen else "no", "harmful refused": point.refusal,
                "harmless answers kept": point.capability, "objective": point.objective,
                "forward passes": point.forward_equivalents,
            }
        )  # fmt: skip
    return told


def plot(
    tradeoff: TradeoffResult,
    layers: Sequence[int] | None = None,
    policies: Sequence[str] | None = None,
    top: int | None = None,
    dark: bool = False,
) -> go.Figure:
    """The merged coefficients and the trade-off they were chosen from.

    layers: whose blocks; None for all, and those outside layers. top: only as many blocks, those that take most of
    other models. policies: whose points; all for None. dark: for dark paper. Raises SurgeryError where the result holds
    none of that name.
    """
    return theme.shown(draw(compute(tradeoff, layers, policies, top)), dark)
