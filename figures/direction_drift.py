"""How far each model's direction drifted from the base's, and how well it still tells harm from no harm.

It is called a refusal direction where the probe has shown that it carries refusals, and what it is else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import link_layers
from vlsurgery.figures.choice import chosen, one_of
from vlsurgery.figures.wording import MODALITY_ORDER, ROLE_ORDER, modality_name, number, rank, role_name
from vlsurgery.probes.results import REFUSAL_DIRECTION, CosineRow, Estimate, ProbeResult, Selected, SeparationRow


@dataclass(frozen=True)
class Series:
    """One role under one modality, layer by layer (ascending). Missing values are None, and leave a gap.

    cosine: with the base's text direction. noise: cosine of the directions from the two halves of the role's own
    prompts. auroc: of harmful against harmless, on prompts that did not make the direction.
    """

    role: str
    modality: str
    cosine_layers: tuple[int, ...]
    cosine: tuple[float | None, ...]
    noise: tuple[float | None, ...]
    auroc_layers: tuple[int, ...]
    auroc: tuple[Estimate, ...]

    @property
    def name(self) -> str:
        return f"{role_name(self.role)}, {modality_name(self.modality)}"


@dataclass(frozen=True)
class DirectionDriftInfo:
    """All series at one position. `reference` is what the cosines are taken with.

    name: what the base's direction may be called. layer: of the direction that carries refusals, else None.
    selected: layer and position where the base separates best, with the null that this must exceed to be a finding.
    noise_band: layer -> lowest and highest split-half cosine of any series: what noise alone does to a direction.
    """

    position: str | None
    selected: Selected | None
    reference: str | None
    series: tuple[Series, ...]
    noise_band: dict[int, tuple[float, float]]
    name: str
    layer: int | None


def _positions(probe: ProbeResult) -> list[str]:
    return [row.position for row in probe.records] + [row.position for row in probe.cosines]


def _position(probe: ProbeResult) -> str | None:
    """Where directions are shown; without that, the position that most rows have (the first of equals by name)."""
    if probe.shown_at is not None:
        return probe.shown_at[0]
    positions = _positions(probe)
    return max(sorted(set(positions)), key=positions.count) if positions else None


def _reference(cosines: list[CosineRow]) -> str | None:
    """The base's text direction if cosines with it exist, else the reference named first in the alphabet."""
    references = sorted({row.reference for row in cosines})
    preferred = [r for r in ("base/text", "base") if r in references]
    return next(iter(preferred + references), None)


def _series(role: str, modality: str, cosines: list[CosineRow], rows: list[SeparationRow]) -> Series:
    mine = sorted((c for c in cosines if (c.role, c.modality) == (role, modality)), key=lambda c: c.layer)
    separation = sorted((r for r in rows if (r.role, r.modality) == (role, modality)), key=lambda r: r.layer)
    return Series(
        role=role,
        modality=modality,
        cosine_layers=tuple(c.layer for c in mine),
        cosine=tuple(c.cosine for c in mine),
        noise=tuple(c.split_half for c in mine),
        auroc_layers=tuple(r.layer for r in separation),
        auroc=tuple(r.auroc for r in separation),
    )


def _noise_band(series: tuple[Series, ...]) -> dict[int, tuple[float, float]]:
    values: dict[int, list[float]] = {}
    for one in series:
        for layer, noise in zip(one.cosine_layers, one.noise, strict=True):
            if noise is not None:
                values.setdefault(layer, []).append(noise)
    return {layer: (min(found), max(found)) for layer, found in sorted(values.items())}


def compute(
    probe: ProbeResult,
    roles: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    position: str | None = None,
    layers: Sequence[int] | None = None,
) -> DirectionDriftInfo:
    """Pick one position and one reference, and gather roles and modalities there. See `plot` for what can be chosen."""
    position = _position(probe) if position is None else one_of("position", position, _positions(probe))
    cosines = [row for row in probe.cosines if row.position == position]
    reference = _reference(cosines)
    cosines = [row for row in cosines if row.reference == reference]
    rows = [row for row in probe.records if row.position == position]
    found = [(row.role, row.modality) for row in rows] + [(row.role, row.modality) for row in cosines]
    of_role = chosen("roles", roles, sorted({r for r, _ in found}, key=lambda role: rank(ROLE_ORDER, role)))
    of_kind = chosen("modalities", modalities, sorted({m for _, m in found}, key=lambda m: rank(MODALITY_ORDER, m)))
    at = chosen("layers", layers, sorted({row.layer for row in rows} | {row.layer for row in cosines}))
    keys = [(role, modality) for role in of_role for modality in of_kind if (role, modality) in found]
    cosines, rows = [row for row in cosines if row.layer in at], [row for row in rows if row.layer in at]
    series = tuple(_series(role, modality, cosines, rows) for role, modality in keys)
    carries = probe.direction_name == REFUSAL_DIRECTION and probe.shown_at is not None
    layer = probe.shown_at[1] if carries and probe.shown_at else None
    return DirectionDriftInfo(
        position, probe.selected, reference, series, _noise_band(series), probe.direction_name, layer
    )


def _line(series: Series) -> dict[str, object]:
    dash = theme.DASHES.get(series.modality, "dot")
    return {"color": theme.role_colour(series.role), "width": 2.2, "dash": dash}


def _add_noise(figure: go.Figure, info: DirectionDriftInfo) -> None:
    layers = list(info.noise_band)
    if not layers:
        return
    lows = [low for low, _ in info.noise_band.values()]
    highs = [high for _, high in info.noise_band.values()]
    figure.add_trace(
        go.Scatter(
            name="noise limit (split halves)",
            x=layers + layers[::-1],
            y=highs + lows[::-1],
            fill="toself",
            fillcolor=theme.tint(theme.FAINT, 0.28),
            line={"width": 1, "color": theme.tint(theme.FAINT, 0.7)},
            mode="lines",
            hoverinfo="skip",
        ),
        row=1,
        col=1,
    )


def _is_reference(series: Series, reference: str | None) -> bool:
    """A direction's cosine with itself is 1 and says nothing, so that it isn't drawn."""
    return reference in (series.role, f"{series.role}/{series.modality}") and series.modality == "text"


def _add_cosine(figure: go.Figure, series: Series) -> None:
    texts = [
        theme.hover(
            series.name, [f"layer {layer}: cosine {number(cosine)}", f"its own two halves: cosine {number(noise)}"]
        )
        for layer, cosine, noise in zip(series.cosine_layers, series.cosine, series.noise, strict=True)
    ]
    figure.add_trace(
        go.Scatter(
            name=theme.safe(series.name),
            legendgroup=theme.safe(series.name),
            x=series.cosine_layers,
            y=series.cosine,
            mode="lines+markers",
            line=_line(series),
            marker={"size": 6},
            hovertext=texts,
            hoverinfo="text",
            showlegend=not series.auroc_layers,
        ),
        row=1,
        col=1,
    )


def _add_auroc(figure: go.Figure, series: Series) -> None:
    texts = [
        theme.hover(series.name, [f"layer {layer}: AUROC {number(e.value, 3)}", _bounds(e)])
        for layer, e in zip(series.auroc_layers, series.auroc, strict=True)
    ]
    figure.add_trace(_auroc_band(series), row=2, col=1)
    figure.add_trace(
        go.Scatter(
            name=theme.safe(series.name),
            legendgroup=theme.safe(series.name),
            x=series.auroc_layers,
            y=[e.value for e in series.auroc],
            mode="lines+markers",
            line=_line(series),
            marker={"size": 6},
            hovertext=texts,
            hoverinfo="text",
        ),
        row=2,
        col=1,
    )


def _auroc_band(series: Series) -> go.Scatter:
    """The intervals as one faint band, over the layers that have one."""
    bounded = [
        (layer, e.low, e.high)
        for layer, e in zip(series.auroc_layers, series.auroc, strict=True)
        if e.low is not None and e.high is not None
    ]
    layers = [layer for layer, _, _ in bounded]
    return go.Scatter(
        legendgroup=theme.safe(series.name),
        showlegend=False,
        x=layers + layers[::-1],
        y=[high for _, _, high in bounded] + [low for _, low, _ in bounded][::-1],
        fill="toself",
        fillcolor=theme.tint(theme.role_colour(series.role), 0.09),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
    )


def _bounds(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"not measured: {estimate.reason or 'no reason given'}"
    return f"95% interval {number(estimate.low, 3)} to {number(estimate.high, 3)}, {estimate.n} requests"


def _guide(figure: go.Figure, y: float, text: str, row: int, side: str) -> None:
    figure.add_hline(
        y=y,
        row=row,
        col=1,
        line={"color": theme.FAINT, "width": 1, "dash": "dash"},
        annotation={"text": text, "font": {"size": 11.5, "color": theme.MUTED}},
        annotation_position=f"bottom {side}",
    )


def _title(info: DirectionDriftInfo) -> str:
    """The adapted model's cosine at the selected layer: with a picture if it was measured, else in text only."""
    layer = _marked(info)
    for series in reversed([one for one in info.series if one.role == "adapted"]):
        at = dict(zip(series.cosine_layers, series.cosine, strict=True)).get(layer) if layer is not None else None
        if at is not None:
            where = modality_name(series.modality)
            return f"At layer {layer}, adapted keeps a cosine of {number(at)} with the base ({where})"
    return f"Drift of the {info.name}, layer by layer"


def _marked(info: DirectionDriftInfo) -> int | None:
    """The layer that is marked: of the direction that carries refusals, else where the base separates best."""
    if info.layer is not None:
        return info.layer
    return info.selected.layer if info.selected else None


def _selected_words(info: DirectionDriftInfo) -> str:
    selected = info.selected
    if info.layer is not None:
        return f"; dotted: layer {info.layer}, whose direction carries refusals: ablating it halves them at least"
    if selected is None:
        return ""
    if selected.auroc <= selected.null:
        return f"; on the base no layer separates better than chance allows (best: layer {selected.layer}, dotted)"
    equal = f" (equal: {', '.join(map(str, selected.ties))})" if selected.ties else ""
    return f"; dotted: layer {selected.layer}, where the base separates best on select prompts{equal}"


def draw(info: DirectionDriftInfo) -> go.Figure:
    """Cosines above, with the noise limit as a grey band; AUROC below, with intervals as bands."""
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.12)
    _add_noise(figure, info)
    for series in info.series:
        if series.cosine_layers and not _is_reference(series, info.reference):
            _add_cosine(figure, series)
    for series in info.series:
        if series.auroc_layers:
            _add_auroc(figure, series)
    where = {"instruction": "the last token of the instruction"}.get(info.position or "", f"token {info.position}")
    subtitle = (
        f"Harmful mean minus harmless mean of the residual stream after each layer, at {where}. Below the grey band a"
        " direction has turned by more than noise turns it."
    )
    theme.frame(figure, _title(info), subtitle, plot_height=540, legend_rows=2, panels=True)
    theme.panel_title(figure, "Cosine with the base's direction (text only)", 1, 1)
    theme.panel_title(figure, "Telling harmful from harmless: AUROC on prompts that did not make the direction", 2, 1)
    _guide(figure, 0, "at right angles", row=1, side="left")
    if info.selected is None:
        _guide(figure, 0.5, "chance", row=2, side="right")
    else:
        _guide(figure, info.selected.null, "what shuffled labels reach at best, over all layers", row=2, side="right")
    if (marked := _marked(info)) is not None:
        figure.add_vline(x=marked, line={"color": theme.MUTED, "width": 1, "dash": "dot"})
    figure.update_yaxes(title_text="cosine", row=1, col=1)
    figure.update_yaxes(title_text="AUROC", row=2, col=1)
    figure.update_xaxes(title_text=f"layer{_selected_words(info)}", row=2, col=1)
    for axis in ("x", "x2"):
        link_layers(figure, axis)
    return figure


def rows(info: DirectionDriftInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a role, kind of picture and layer."""
    told = []
    for series in info.series:
        cosines = dict(zip(series.cosine_layers, zip(series.cosine, series.noise, strict=True), strict=True))
        aurocs = dict(zip(series.auroc_layers, series.auroc, strict=True))
        for layer in sorted({*cosines, *aurocs}):
            cosine, noise = cosines.get(layer, (None, None))
            auroc = aurocs.get(layer, Estimate(value=None))
            told.append(
                {
                    "role": series.role, "modality": series.modality, "position": info.position, "layer": layer,
                    "cosine with the base": cosine, "cosine of its own halves": noise,
                    "AUROC": auroc.value, "AUROC low": auroc.low, "AUROC high": auroc.high, "requests": auroc.n,
                }
            )  # fmt: skip
    return told


def plot(
    probe: ProbeResult,
    roles: Sequence[str] | None = None,
    modalities: Sequence[str] | None = None,
    position: str | None = None,
    layers: Sequence[int] | None = None,
    dark: bool = False,
) -> go.Figure:
    """Drift of the base's direction and separation, layer by layer.

    roles, modalities, layers: which; all for None. position: the token that is read, "instruction" or "-1", "-2", ...;
    None for the one at which the probe shows directions. dark: for dark paper. Raises SurgeryError where the result
    holds none of that name.
    """
    return theme.shown(draw(compute(probe, roles, modalities, position, layers)), dark)
