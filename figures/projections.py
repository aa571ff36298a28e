"""How prompts lie along the base's direction: harmful, harmless and borderline ones, for every role."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

import plotly.graph_objects as go

from vlsurgery.figures import theme
from vlsurgery.figures.choice import chosen, one_of
from vlsurgery.figures.menus import show_one
from vlsurgery.figures.wording import MODALITY_ORDER, ROLE_ORDER, SET_ORDER, modality_name, rank, role_name
from vlsurgery.probes.results import ProbeResult, Projections

MAX_STEPS = 10  # positions of the slider
MAX_MODALITIES = 2  # drawn unless others are asked for: every value of every layer is in the figure
COLOURS = {"harmful": theme.INK, "harmless": theme.KIND_COLOURS["MLP"], "borderline": theme.UNKNOWN_ROLE}
BASE = ("base", "text")


@dataclass(frozen=True)
class Ridge:
    """One kind of prompt under one role. values: layer -> one a prompt, where 0 is the mean of the base's harmless
    prompts in text and 1 that of its harmful ones, at this layer and position."""

    role: str
    modality: str
    set: str
    position: str
    prompts: tuple[str, ...]
    values: dict[int, tuple[float, ...]]

    @property
    def name(self) -> str:
        """The role, whose kind of picture the drop-down names; the base is read in text alone."""
        base = (self.role, self.modality) == BASE
        return f"{role_name(self.role)}, {modality_name(self.modality)}" if base else role_name(self.role)


@dataclass(frozen=True)
class ProjectionsInfo:
    """All ridges. layers: of the slider; layer: shown first. views: (position, modality) of the drop-down; view: shown
    first. reason: why there is nothing to draw."""

    ridges: tuple[Ridge, ...]
    layers: tuple[int, ...]
    layer: int | None
    views: tuple[tuple[str, str], ...]
    view: tuple[str, str] | None
    reason: str | None = None


def compute(
    probe: ProbeResult,
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    position: str | None = None,
    layers: Sequence[int] | None = None,
) -> ProjectionsInfo:
    """Gather projections, measured in the base's own distance between harmful and harmless requests in text.

    modalities: by default text and the first kind of picture. position: shown first; by default that at which figures
    show directions. layers: of the slider, by default at most MAX_STEPS.
    """
    order = sorted(
        probe.projections,
        key=lambda each: (rank(ROLE_ORDER, each.role), rank(MODALITY_ORDER, each.modality), rank(SET_ORDER, each.set)),
    )
    there = chosen("roles", roles, (each.role for each in order))
    kinds = chosen("sets", sets, (each.set for each in order))
    known = sorted({each.modality for each in order}, key=lambda each: rank(MODALITY_ORDER, each))
    seen = chosen("modalities", modalities, known) if modalities is not None else tuple(known[:MAX_MODALITIES])
    scales = _scales(order)
    if not scales:
        return ProjectionsInfo((), (), None, (), None, "The base's harmful and harmless projections are missing.")
    positions = chosen("position", None, (place for place, _ in scales))
    steps = _steps(order[0].layers, layers, probe.shown_at[1] if probe.shown_at else None)
    ridges = tuple(
        _ridge(each, place, steps, scales)
        for each in order
        if each.role in there and each.set in kinds and each.modality in seen
        for place in positions
        if place in each.values
    )
    first = position or (probe.shown_at[0] if probe.shown_at else positions[0])
    first = one_of("position", first, positions) if position else (first if first in positions else positions[0])
    views = tuple((place, modality) for place in positions for modality in seen)
    pictured = next((each for each in seen if each != "text"), seen[0])
    at = probe.shown_at[1] if probe.shown_at and probe.shown_at[1] in steps else steps[len(steps) // 2]
    return ProjectionsInfo(ridges, steps, at, views, (first, pictured))


def _steps(there: Sequence[int], wanted: Sequence[int] | None, marked: int | None) -> tuple[int, ...]:
    """Layers of the slider, evenly spaced, and the marked one."""
    if wanted is not None:
        return chosen("layers", wanted, there)
    every = -(-len(there) // MAX_STEPS)
    spaced = set(list(there)[::-1][::every])
    return tuple(each for each in there if each in spaced or each == marked)


def _scales(found: Sequence[Projections]) -> dict[tuple[str, int], tuple[float, float]]:
    """(position, layer) -> the base's mean harmless projection in text, and its distance to the harmful one."""
    base = {each.set: each for each in found if (each.role, each.modality) == BASE}
    if not {"harmful", "harmless"} <= base.keys():
        return {}
    scales = {}
    for place, values in base["harmful"].values.items():
        for layer, ours, theirs in zip(base["harmful"].layers, values, base["harmless"].values[place], strict=True):
            zero = mean(theirs)
            scales[place, layer] = (zero, mean(ours) - zero)
    return scales


def _ridge(
    found: Projections, place: str, layers: Sequence[int], scales: dict[tuple[str, int], tuple[float, float]]
) -> Ridge:
    values = {}
    for layer, each in zip(found.layers, found.values[place], strict=True):
        zero, distance = scales[place, layer]
        if layer in layers and distance:
            values[layer] = tuple(round((value - zero) / distance, 2) for value in each)
    return Ridge(found.role, found.modality, found.set, place, tuple(found.prompts), values)


def rows(info: ProjectionsInfo) -> list[dict[str, str | int | float | None]]:
    """The numbers that are drawn: a record a prompt at the layer that is shown first."""
    return [
        {
            "role": ridge.role,
            "modality": ridge.modality,
            "prompts": ridge.set,
            "position": ridge.position,
            "layer": info.layer,
            "prompt": prompt,
            "projection": value,
        }
        for ridge in info.ridges
        if info.layer is not None
        for prompt, value in zip(ridge.prompts, ridge.values.get(info.layer, ()), strict=False)
    ]


def _place(position: str) -> str:
    return "last instruction token" if position == "instruction" else f"token {position}"


def _violin(ridge: Ridge, layer: int, named: bool) -> go.Violin:
    values = ridge.values.get(layer, ())
    return go.Violin(
        x=values,
        y=[theme.safe(ridge.name)] * len(ridge.prompts),
        name=theme.safe(ridge.set),
        legendgroup=theme.safe(ridge.set),
        showlegend=named,
        orientation="h",
        side="positive",
        width=1.5,
        points="all",
        pointpos=-0.12,
        jitter=0.16,
        marker={"size": 3.5, "color": COLOURS.get(ridge.set, theme.FAINT), "opacity": 0.7},
        line={"color": COLOURS.get(ridge.set, theme.FAINT), "width": 1.4},
        fillcolor=theme.tint(COLOURS.get(ridge.set, theme.FAINT), 0.22),
        meanline={"visible": True},
        spanmode="hard",
        hovertext=[theme.safe(prompt) for prompt in ridge.prompts],
        hoverinfo="x+text",
    )


def draw(info: ProjectionsInfo) -> go.Figure:
    """A ridge a role and prompt set, a point a prompt; a slider for the layer, a drop-down for token and picture."""
    figure, owners = go.Figure(), list[tuple[str, ...]]()
    if info.layer is None or info.view is None:
        return theme.frame(figure, "Projections on the base's direction", info.reason or "", plot_height=120)
    named: set[tuple[str, str]] = set()
    for ridge in info.ridges:
        views = ["/".join(view) for view in info.views if _is_in(ridge, view)]
        new = [view for view in views if (view, ridge.set) not in named]
        named |= {(view, ridge.set) for view in new}
        figure.add_trace(_violin(ridge, info.layer, len(new) == len(views)))
        owners.append(tuple(views))
    subtitle = (
        "Each point is a prompt, along the base's own direction (text) of the same layer and token: 0 is where the base"
        " holds harmless requests in text, 1 where it holds harmful ones, on average."
    )
    names = [*dict.fromkeys(ridge.name for ridge in info.ridges)]
    theme.frame(figure, "Where prompts lie along the base's direction", subtitle, plot_height=110 + 70 * len(names))
    labels = {"/".join(view): f"{modality_name(view[1])}, {_place(view[0])}" for view in info.views}
    show_one(figure, labels, owners, "/".join(info.view), 1)
    for at in (0, 1):
        figure.add_vline(x=at, line={"color": theme.FAINT, "width": 1, "dash": "dash"})
    figure.update_xaxes(title_text="base, harmless = 0; base, harmful = 1", zeroline=False)
    figure.update_yaxes(categoryorder="array", categoryarray=[theme.safe(name) for name in names[::-1]])
    figure.update_layout(violingap=0.15, violinmode="overlay", sliders=[_slider(info)])
    return figure


def _is_in(ridge: Ridge, view: tuple[str, str]) -> bool:
    """Whether a ridge is of one position and modality; the base's in text stands beside every kind of picture."""
    return ridge.position == view[0] and (ridge.modality == view[1] or (ridge.role, ridge.modality) == BASE)


def _slider(info: ProjectionsInfo) -> dict[str, object]:
    steps = [
        {
            "label": str(layer),
            "method": "restyle",
            "args": [{"x": [list(ridge.values.get(layer, ())) for ridge in info.ridges]}],
        }
        for layer in info.layers
    ]
    active = info.layers.index(info.layer) if info.layer is not None else 0
    return {"steps": steps, "active": active, "currentvalue": {"prefix": "layer "}, "pad": {"t": 46}}


def plot(
    probe: ProbeResult,
    roles: Sequence[str] | None = None,
    sets: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    position: str | None = None,
    layers: Sequence[int] | None = None,
    dark: bool = False,
) -> go.Figure:
    """Projections of prompts on the base's direction, as ridges, with a slider for the layer."""
    return theme.shown(draw(compute(probe, roles, sets, modalities, position, layers)), dark)
