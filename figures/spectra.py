"""How the changes of weights are spread over directions: singular values of deltas, each with what a random change of
the same size would have."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import link_layers
from vlsurgery.figures.choice import chosen, leading
from vlsurgery.figures.parts import component_order, in_order, menu, short
from vlsurgery.figures.wording import number
from vlsurgery.surgery.results import DeltaMetrics, DiffResult, Pair

DELTA_NAMES: Final = {"vl": "adaptation", "safety": "safety tuning"}
DELTA_ROLES: Final = {"vl": "adapted", "safety": "safety"}
FEW: Final = 1.5  # times a random change's largest value, from which a change is said to lie in few directions
SHOWN: Final = 12  # tensors whose singular values can be picked
GRID: Final = 4096  # places at which the null's density is summed
HEIGHTS: Final = (260, 230)
GAP: Final = 96


@dataclass(frozen=True)
class TensorSpectrum:
    """One tensor's change under one delta.

    values: leading singular values. null: those that a random change of the same norm and shape would have, as many.
    excess: the largest value over the null's largest; 1 for a random change, more for one of low rank. stable_rank:
    squared norm over the squared largest value. head_share: share of the squared norm in the leading 8.
    """

    delta: str
    layer: int | None
    component: str
    values: tuple[float, ...]
    null: tuple[float, ...]
    excess: float
    stable_rank: float | None
    head_share: float | None

    @property
    def tensor(self) -> str:
        return self.component if self.layer is None else f"{self.layer}.{self.component}"


@dataclass(frozen=True)
class SpectraInfo:
    """Every spectrum of the text tower that was asked for. picked: tensors that can be looked at, largest excess of the
    first delta first. reasons: why others have none."""

    spectra: tuple[TensorSpectrum, ...]
    deltas: tuple[str, ...]
    picked: tuple[str, ...]


def random_singular_values(rows: int, columns: int, rms: float, count: int) -> tuple[float, ...]:
    """The leading singular values of a matrix of independent entries with this root mean square, largest first.

    Quantiles of the law of Marchenko and Pastur (1967): the squared singular values over n sigma^2 (n the larger side,
    m the smaller, y = m/n) have density sqrt((b - x)(x - a)) / (2 pi y x) between a, b = (1 -+ sqrt(y))^2. The i-th of
    m is taken at 1 - (i - 1/2)/m. Exact for large matrices; of small ones the largest vary by about m^(-2/3).
    """
    small, large = min(rows, columns), max(rows, columns)
    ratio = small / large
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2
    angles = (np.arange(GRID) + 0.5) * math.pi / GRID  # so that the density's ends are smooth
    places = (low + high) / 2 + (high - low) / 2 * np.cos(angles)
    weights = (high - low) ** 2 / 4 * np.sin(angles) ** 2 / (2 * math.pi * ratio * places) * (math.pi / GRID)
    above = np.cumsum(weights) / weights.sum()
    squares = np.interp((np.arange(min(count, small)) + 0.5) / small, above, places)
    return tuple((rms * math.sqrt(large) * np.sqrt(squares)).tolist())


def compute(
    diff: DiffResult,
    deltas: Sequence[str] | None = None,
    components: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    top: int | None = SHOWN,
) -> SpectraInfo:
    """Take the singular values of a diff, beside those of random changes; what can be chosen: see `plot`."""
    found = [
        one
        for pair in diff.pairs
        if pair.tower == "text" and not pair.added
        for delta in DELTA_NAMES
        if (one := _spectrum(pair, delta, getattr(pair.metrics, delta))) is not None
    ]
    wanted = chosen("deltas", deltas, [delta for delta in DELTA_NAMES if any(one.delta == delta for one in found)])
    kinds = chosen("components", components, in_order(one.component for one in found))
    at = chosen("layers", layers, sorted({one.layer for one in found if one.layer is not None}))
    kept = [
        one
        for one in found
        if one.delta in wanted and one.component in kinds and (one.layer in at or (one.layer is None and not layers))
    ]
    first = sorted((one for one in kept if one.delta == wanted[0]), key=lambda one: -one.excess) if wanted else []
    picked = tuple(one.tensor for one in first[: leading("top", top)])
    return SpectraInfo(tuple(kept), wanted, picked)


def _spectrum(pair: Pair, delta: str, metrics: DeltaMetrics | None) -> TensorSpectrum | None:
    if metrics is None or not metrics.singular_values or len(pair.shape) != 2:
        return None
    values = tuple(metrics.singular_values)
    null = random_singular_values(pair.shape[0], pair.shape[1], metrics.rms, len(values))
    return TensorSpectrum(
        delta=delta,
        layer=pair.layer,
        component=pair.component,
        values=values,
        null=null,
        excess=values[0] / null[0],
        stable_rank=metrics.stable_rank,
        head_share=(metrics.energy or {}).get("8"),
    )


def title(info: SpectraInfo) -> str:
    if not info.spectra:
        return "No singular values were measured"
    first = [one for one in info.spectra if one.delta == info.deltas[0]]
    count = sum(one.excess > FEW for one in first)
    furthest = max(first, key=lambda one: one.excess)
    name = DELTA_NAMES[info.deltas[0]].capitalize()
    if not count:
        return f"{name} moved no matrix along few directions: all changes look random"
    return (
        f"{name} moved {count} of {len(first)} matrices along few directions, most of all {furthest.tensor}"
        f" ({number(furthest.excess, 1)} times random)"
    )


def draw(info: SpectraInfo) -> go.Figure:
    """Above, by layer and component, how far the largest singular value exceeds a random change's; below the singular
    values of one tensor, which a menu picks."""
    whole = sum(HEIGHTS) + GAP
    figure = make_subplots(
        rows=2, cols=1, row_heights=[height / sum(HEIGHTS) for height in HEIGHTS], vertical_spacing=GAP / whole
    )
    menus = [_overview(figure, info), _lines(figure, info)]
    subtitle = (
        "The largest singular value of a tensor's change over that of a random change of the same norm: 1 where it has"
        " no direction of its own, more where few directions hold it."
    )
    theme.frame(figure, title(info), subtitle, whole, legend_rows=1, panels=True)
    theme.panel_title(figure, "Largest value over the null's", 1, 1)
    theme.panel_title(figure, "Singular values of one tensor; dashed: of a random change", 2, 1)
    figure.update_layout(updatemenus=[each for each in menus if each])
    figure.update_xaxes(title_text="layer", row=1, col=1)
    figure.update_xaxes(title_text="number of the singular value", row=2, col=1)
    figure.update_yaxes(title_text="singular value", type="log", row=2, col=1)
    link_layers(figure, "x")
    return figure


def _overview(figure: go.Figure, info: SpectraInfo) -> dict[str, object] | None:
    for delta in info.deltas:
        figure.add_trace(_heat(info, delta).update(visible=delta == info.deltas[0]), row=1, col=1)
    if len(info.deltas) < 2:
        return None
    buttons: list[tuple[str, dict[str, object], dict[str, object]]] = [
        (DELTA_NAMES[delta], {"visible": [delta == other for other in info.deltas]}, {}) for delta in info.deltas
    ]
    return menu(buttons, range(len(info.deltas)), 1.0, "delta")


def _heat(info: SpectraInfo, delta: str) -> go.Heatmap:
    own = {(one.component, one.layer): one for one in info.spectra if one.delta == delta and one.layer is not None}
    names = in_order(component for component, _ in own)[::-1]
    layers = sorted({layer for _, layer in own if layer is not None})
    cells = [[own.get((name, layer)) for layer in layers] for name in names]
    return go.Heatmap(
        x=layers,
        y=names,
        z=[[None if one is None else short(one.excess) for one in row] for row in cells],
        customdata=[[[one.head_share, one.stable_rank] if one else [None, None] for one in row] for row in cells],
        zmin=1,
        zmax=max(2.0, *(one.excess for one in own.values())),
        colorscale=theme.HEAT_SCALE,
        colorbar={
            "title": {"text": "times random", "side": "right"},
            "thickness": 12,
            "len": HEIGHTS[0] / (sum(HEIGHTS) + GAP),
            "y": 1,
            "yanchor": "top",
            "outlinewidth": 0,
        },
        hovertemplate=(
            f"<b>%{{x}}.%{{y}}</b><br>{DELTA_NAMES[delta]}: largest value %{{z:.1f}} times that of a random change"
            "<br>%{customdata[0]:.0%} of its squared norm in 8 directions<br>stable rank %{customdata[1]:.1f}"
            "<extra></extra>"
        ),
        hoverongaps=False,
        xgap=1,
        ygap=1,
    )


def _lines(figure: go.Figure, info: SpectraInfo) -> dict[str, object] | None:
    first, owners = len(figure.data), []
    for tensor in info.picked:
        for one in info.spectra:
            if one.tensor == tensor:
                for trace in _scree(one):
                    figure.add_trace(trace.update(visible=tensor == info.picked[0]), row=2, col=1)
                    owners.append(tensor)
    if not owners:
        return None
    buttons: list[tuple[str, dict[str, object], dict[str, object]]] = [
        (tensor, {"visible": [tensor == owner for owner in owners]}, {}) for tensor in info.picked
    ]
    return menu(buttons, range(first, len(figure.data)), HEIGHTS[1] / (sum(HEIGHTS) + GAP), "tensor")


def _scree(one: TensorSpectrum) -> list[go.Scatter]:
    """The values of a change, and those of a random one."""
    colour, name = theme.role_colour(DELTA_ROLES[one.delta]), DELTA_NAMES[one.delta]
    numbers = list(range(1, len(one.values) + 1))
    values = go.Scatter(
        name=name,
        x=numbers,
        y=[short(value) for value in one.values],
        mode="lines+markers",
        marker={"size": 4},
        line={"color": colour, "width": 2},
        hovertemplate=f"<b>{theme.safe(one.tensor)}, {name}</b><br>value %{{x}}: %{{y:.4g}}<extra></extra>",
    )
    null = go.Scatter(
        name=f"{name}, were it random",
        x=list(range(1, len(one.null) + 1)),
        y=[short(value) for value in one.null],
        mode="lines",
        line={"color": colour, "width": 1.4, "dash": "dash"},
        hoverinfo="skip",
    )
    return [values, null]


def _place(one: TensorSpectrum) -> tuple[bool, int, tuple[int, str], str]:
    return one.layer is None, one.layer or 0, component_order(one.component), one.delta


def rows(info: SpectraInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a tensor and delta: its largest singular values, and what a random change has."""
    return [
        {
            "layer": one.layer, "component": one.component, "delta": DELTA_NAMES[one.delta],
            "largest value": short(one.values[0]), "largest of a random change": short(one.null[0]),
            "times random": short(one.excess),
            "share in 8 directions": one.head_share, "stable rank": one.stable_rank,
        }
        for one in sorted(info.spectra, key=_place)
    ]  # fmt: skip


def plot(
    diff: DiffResult,
    deltas: Sequence[str] | None = None,
    components: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    top: int | None = SHOWN,
    dark: bool = False,
) -> go.Figure:
    """Singular values of the language model's changes, with their nulls.

    deltas: "vl" (adaptation), "safety" or both (None); the first orders the tensors. components, layers: only of these.
    top: how many tensors the menu offers. dark: for dark paper. Raises SurgeryError where nothing has that name.
    """
    return theme.shown(draw(compute(diff, deltas, components, layers, top)), dark)
