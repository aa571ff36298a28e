"""Any two directions of a case side by side: how alike they are, layer by layer, and how well each one separates.

Two figures: the cosines of every layer of one with every layer of the other, and what each one does by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import plotly.graph_objects as go

from vlsurgery.figures import blocks, theme
from vlsurgery.figures.choice import one_of
from vlsurgery.figures.wording import modality_name, number, role_name
from vlsurgery.probes.results import ProbeResult, SeparationRow
from vlsurgery.surgery.errors import SurgeryError

NULL_LEVEL = 0.95  # of the highest |cosine| of all pairs of layers, for random directions


@dataclass(frozen=True)
class PairedDirection:
    """One of the two directions. rows: layer -> its separation. halves: layer -> cosine of the directions from the two
    halves of its own prompts, None where it is not known."""

    role: str
    modality: str
    rows: dict[int, SeparationRow]
    halves: dict[int, float | None]

    @property
    def name(self) -> str:
        return f"{role_name(self.role)}, {modality_name(self.modality)}"


@dataclass(frozen=True)
class DirectionPairInfo:
    """Two directions at one position.

    cosines: [layers of the first][layers of the second], in [-1, 1]. layer: the one that is looked at. null: what the
    largest |cosine| of so many pairs of independent random directions of this width exceeds once in twenty times; the
    directions of one model are not random, so that this is the least that a cosine has to exceed.
    """

    position: str
    layer: int
    first: PairedDirection
    second: PairedDirection
    cosines: tuple[tuple[float, ...], ...]
    null: float

    @property
    def title(self) -> str:
        here = self.cosines[self.layer][self.layer]
        return f"After layer {self.layer} the two directions have a cosine of {number(here)}"

    @property
    def subtitle(self) -> str:
        first, second = (number(side.halves.get(self.layer)) for side in (self.first, self.second))
        return (
            f"{self.first.name} and {self.second.name}, at {position_name(self.position)}. Directions of the halves of "
            f"each one's own prompts have cosines of {first} and {second}: so much other prompts change. Of random "
            f"directions the best of all pairs of layers stays below {number(self.null)}."
        )


def position_name(position: str) -> str:
    """A position in words: "the last instruction token"."""
    return "the last instruction token" if position == "instruction" else f"token {position}"


def compute(
    probe: ProbeResult,
    first: tuple[str, str],
    second: tuple[str, str],
    vectors: tuple[np.ndarray, np.ndarray],
    position: str,
    layer: int,
) -> DirectionPairInfo:
    """Compare two directions.

    first, second: role and modality. vectors: their directions [layers, hidden] at `position`, of any length.

    Raises SurgeryError where the two are not of one shape, or have no such layer.
    """
    ours, theirs = (np.asarray(each, dtype=np.float64) for each in vectors)
    if ours.shape != theirs.shape:
        raise SurgeryError(
            f"the directions of {first[0]} and {second[0]} are {list(ours.shape)} and {list(theirs.shape)} (layers, "
            "width), so they have no cosine. Choose two of one shape."
        )
    one_of("layer", layer, range(len(ours)))
    cosines = _unit(ours) @ _unit(theirs).T
    here, there = (_side(probe, role, modality, position) for role, modality in (first, second))
    rows = tuple(tuple(float(value) for value in row) for row in cosines.clip(-1.0, 1.0))
    return DirectionPairInfo(position, layer, here, there, rows, _random_null(cosines.size, ours.shape[1]))


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of length 0 stays 0."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def _random_null(pairs: int, width: int) -> float:
    """The NULL_LEVEL quantile of the largest |cosine| of `pairs` independent pairs of random directions, by the normal
    approximation of a cosine (mean 0, variance 1 / width)."""
    each = NULL_LEVEL ** (1 / pairs)
    return min(1.0, NormalDist().inv_cdf((1 + each) / 2) / width**0.5)


def _side(probe: ProbeResult, role: str, modality: str, position: str) -> PairedDirection:
    key = (role, modality, position)
    rows = {row.layer: row for row in probe.records if (row.role, row.modality, row.position) == key}
    halves = {row.layer: row.split_half for row in probe.cosines if (row.role, row.modality, row.position) == key}
    return PairedDirection(role, modality, rows, halves)


def rows(info: DirectionPairInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn as a table: one row a layer."""
    found: list[dict[str, str | int | float | None]] = []
    for layer in range(len(info.cosines)):
        row: dict[str, str | int | float | None] = {"layer": layer, "cosine": info.cosines[layer][layer]}
        for side in (info.first, info.second):
            one = side.rows.get(layer)
            row |= {
                f"{side.name}: AUROC": one.auroc.value if one else None,
                f"{side.name}: AUROC low": one.auroc.low if one else None,
                f"{side.name}: AUROC high": one.auroc.high if one else None,
                f"{side.name}: d'": one.dprime.value if one else None,
                f"{side.name}: length": one.norm if one else None,
                f"{side.name}: cosine of halves": side.halves.get(layer),
            }
        found.append(row)
    return found


def plot(info: DirectionPairInfo, *, dark: bool = False) -> go.Figure:
    """The cosines of all pairs of layers as a map, with the layer that is looked at marked."""
    figure = go.Figure(
        go.Heatmap(
            z=info.cosines,
            zmin=-1.0,
            zmax=1.0,
            colorscale=theme.COSINE_SCALE,
            colorbar={"title": {"text": "cosine"}, "thickness": 12, "outlinewidth": 0, "tickvals": [-1, 0, 1]},
            hovertemplate=(
                f"{theme.safe(info.first.name)}, layer %{{y}}<br>{theme.safe(info.second.name)}, layer %{{x}}<br>"
                "cosine %{z:.2f}<extra></extra>"
            ),
        )
    )
    last = len(info.cosines) - 0.5
    for edges in ({"x0": -0.5, "x1": last, "y0": info.layer - 0.5, "y1": info.layer + 0.5},
                  {"y0": -0.5, "y1": last, "x0": info.layer - 0.5, "x1": info.layer + 0.5}):  # fmt: skip
        figure.add_shape(type="rect", line={"color": theme.INK, "width": 1}, **edges)
    theme.frame(figure, info.title, info.subtitle, plot_height=360, legend_rows=0)
    figure.update_xaxes(title_text=f"layer: {theme.safe(info.second.name)}", constrain="domain", range=[-0.5, last])
    figure.update_yaxes(
        title_text=f"layer: {theme.safe(info.first.name)}",
        range=[last, -0.5],
        scaleanchor="x",
        constrain="domain",
        showgrid=False,
    )
    return theme.shown(figure, dark)


def plot_separation(info: DirectionPairInfo, *, dark: bool = False) -> go.Figure:
    """AUROC of harmful against harmless along each direction, and their cosine, layer by layer."""
    figure = go.Figure()
    for side in (info.first, info.second):
        _add_auroc(figure, side)
    layers = list(range(len(info.cosines)))
    _add_line(
        figure,
        "cosine of the two",
        layers,
        [info.cosines[layer][layer] for layer in layers],
        {"color": theme.INK, "width": 2.2, "dash": "dot"},
    )
    figure.add_hrect(-info.null, info.null, fillcolor=theme.tint(theme.FAINT, 0.2), line_width=0)
    figure.add_vline(info.layer, line={"color": theme.INK, "width": 1})
    theme.frame(
        figure,
        f"How well each one separates, at {position_name(info.position)}",
        "AUROC of harmful against harmless along each direction, on prompts that did not make it, with 95% intervals; "
        ".5 is chance. The band is what the cosine of random directions reaches.",
        plot_height=300,
        legend_rows=3,
    )
    figure.update_xaxes(title_text="layer")
    figure.update_yaxes(title_text="AUROC, cosine", range=[-1.05, 1.05])
    blocks.link_layers(figure, "x")
    return theme.shown(figure, dark)


def _add_auroc(figure: go.Figure, side: PairedDirection) -> None:
    known = [(layer, row.auroc) for layer, row in sorted(side.rows.items()) if row.auroc.value is not None]
    layers = [layer for layer, _ in known]
    colour = theme.role_colour(side.role)
    lows = [each.low if each.low is not None else each.value for _, each in known]
    highs = [each.high if each.high is not None else each.value for _, each in known]
    figure.add_trace(
        go.Scatter(
            x=layers + layers[::-1],
            y=highs + lows[::-1],
            fill="toself",
            fillcolor=theme.tint(colour, 0.15),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
        )
    )
    dash = theme.DASHES.get(side.modality, "dot")
    _add_line(
        figure,
        f"AUROC, {side.name}",
        layers,
        [each.value for _, each in known],
        {"color": colour, "width": 2.2, "dash": dash},
    )


def _add_line(
    figure: go.Figure, name: str, layers: Sequence[int], values: Sequence[float | None], line: dict[str, object]
) -> None:
    figure.add_trace(
        go.Scatter(
            name=theme.safe(name),
            x=list(layers),
            y=list(values),
            mode="lines+markers",
            line=line,
            marker={"size": 5},
            hovertemplate=f"<b>{theme.safe(name)}</b><br>layer %{{x}}: %{{y:.2f}}<extra></extra>",
        )
    )
