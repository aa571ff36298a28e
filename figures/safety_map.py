"""Where safety was lost: what moving each block back to the base gives, along the path and by transplant."""

from dataclasses import dataclass

import plotly.graph_objects as go

from vlsurgery.figures import theme
from vlsurgery.figures.blocks import BlockAxis, Place, block_axis
from vlsurgery.figures.wording import listed, number, percent, signed
from vlsurgery.probes.results import Completeness, ProbeResult


@dataclass(frozen=True)
class BlockFinding:
    """All that a probe says of one block; what it doesn't say is None. Gains are in nats of refusal log-odds.

    low, high: the 95% interval of `path` over requests.
    """

    place: Place
    path: float | None
    low: float | None
    high: float | None
    share: float | None
    cost: float | None
    endpoint: float | None
    transplant: float | None


@dataclass(frozen=True)
class SafetyMapInfo:
    """Every attributed block once, by its place on the axis, and the checks of the map.

    top: up to three blocks with the largest positive gains along the path, largest first. top_share: their part of
    the map's sum; None where the sum isn't positive, so that there is no loss to share. clear: as many of `top` as have
    intervals that stand clear of the largest gain that is not among them; all of them where no interval is known.
    """

    blocks: tuple[BlockFinding, ...]
    axis: BlockAxis
    completeness: Completeness | None
    top: tuple[BlockFinding, ...]
    top_share: float | None
    clear: tuple[BlockFinding, ...]


def compute(probe: ProbeResult) -> SafetyMapInfo:
    """Bring together the path map, the endpoint map and the transplants, block by block."""
    path = {row.block: row for row in probe.attribution if row.method == "path"}
    endpoint = {row.block: row.gain for row in probe.attribution if row.method == "endpoint"}
    transplants = {row.block: row.gain for row in probe.transplants}
    axis = block_axis([*path, *endpoint, *transplants])
    findings = [
        BlockFinding(
            place=place,
            path=path[block].gain if block in path else None,
            low=path[block].low if block in path else None,
            high=path[block].high if block in path else None,
            share=path[block].share if block in path else None,
            cost=path[block].cost if block in path else None,
            endpoint=endpoint.get(block),
            transplant=transplants.get(block),
        )
        for block, place in axis.places.items()
    ]
    total = sum(row.gain for row in path.values())
    gains = sorted((f for f in findings if f.path is not None and f.path > 0), key=lambda f: -(f.path or 0))
    top = tuple(gains[:3])
    return SafetyMapInfo(
        blocks=tuple(sorted(findings, key=lambda f: f.place.x)),
        axis=axis,
        completeness=probe.completeness,
        top=top,
        top_share=sum(f.path or 0 for f in top) / total if total > 0 else None,
        clear=_clear(gains),
    )


def _clear(gains: list[BlockFinding]) -> tuple[BlockFinding, ...]:
    """As many of the three largest gains as all have intervals above the largest of the others."""
    for count in range(min(3, len(gains)), 0, -1):
        rest = (gains[count].path or 0.0) if count < len(gains) else 0.0
        if all(gain.low is None or gain.low > rest for gain in gains[:count]):
            return tuple(gains[:count])
    return ()


def title(info: SafetyMapInfo) -> str:
    if not info.blocks:
        return "No block was attributed"
    if info.top_share is None:
        return "Moving blocks back to the base brings back no refusal"
    if not info.clear:
        return "The lost refusal is spread out; no block's gain stands clear of the others'"
    names, share = listed([f.place.block for f in info.clear]), sum(f.share or 0 for f in info.clear)
    if share >= 0.5:
        return f"Most of the lost refusal sits in {names}"
    return f"The lost refusal is spread out; {names} hold{'s' if len(info.clear) == 1 else ''} most, {percent(share)}"


def checks(completeness: Completeness | None) -> str:
    """The two checks of the map, in words: does it sum to the whole, and do transplants agree."""
    if completeness is None:
        return "The map was not checked against the measured change."
    error = "" if completeness.error is None else f" (off by {percent(completeness.error)})"
    text = (
        f"Check: the bars sum to {number(completeness.total)} nats; {number(completeness.measured)} were measured from"
        f" adapted to graft{error}."
    )
    if completeness.rank_correlation is None:
        return f"{text} The endpoint map was not compared with transplants."
    return f"{text} Endpoint map and single transplants: rank correlation {number(completeness.rank_correlation)}."


def _hover(finding: BlockFinding) -> str:
    lines = []
    if finding.path is not None:
        interval = (
            "" if finding.low is None or finding.high is None else f" [{signed(finding.low)} to {signed(finding.high)}]"
        )
        lines.append(
            f"{signed(finding.path)}{interval} nats of refusal log-odds when moved to the base, along the path"
        )
    if finding.share is not None:
        lines.append(f"{percent(finding.share)} of the whole change" if finding.share >= 0 else "works against it")
    if finding.transplant is not None:
        lines.append(f"{signed(finding.transplant)} nats when it alone is transplanted")
    if finding.endpoint is not None:
        lines.append(f"{signed(finding.endpoint)} nats by the gradient at the adapted model")
    if finding.cost is not None:
        lines.append(f"price: KL {number(finding.cost, 3)} nats on prompts to go on answering")
    return theme.hover(f"{finding.place.block} ({finding.place.label})", lines)


def _bars(info: SafetyMapInfo, kind: str, name: str) -> go.Bar:
    rows = [f for f in info.blocks if f.place.kind == kind and f.path is not None]
    return go.Bar(
        name=name,
        x=[f.place.x for f in rows],
        y=[f.path for f in rows],
        width=info.axis.bar_width,
        marker={"color": theme.KIND_COLOURS[kind], "line": {"width": 0}},
        error_y=_whiskers(rows),
        hovertext=[_hover(f) for f in rows],
        hoverinfo="text",
    )


def _whiskers(rows: list[BlockFinding]) -> dict[str, object]:
    """The intervals of bars, where they are known."""
    if any(row.low is None for row in rows):
        return {"visible": False}
    above = [(row.high or 0.0) - (row.path or 0.0) for row in rows]
    below = [(row.path or 0.0) - (row.low or 0.0) for row in rows]
    look = {"color": theme.INK, "thickness": 1, "width": 2}
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, **look}


def _marks(info: SafetyMapInfo, measure: str, name: str, symbol: str) -> go.Scatter:
    rows = [f for f in info.blocks if getattr(f, measure) is not None]
    return go.Scatter(
        name=name,
        mode="markers",
        x=[f.place.x for f in rows],
        y=[getattr(f, measure) for f in rows],
        marker={
            "symbol": symbol,
            "size": 9,
            "color": theme.PAPER,
            "line": {"color": theme.INK, "width": 1.6},
        },
        hovertext=[_hover(f) for f in rows],
        hoverinfo="text",
    )


def draw(info: SafetyMapInfo) -> go.Figure:
    """Bars for the path map, diamonds for single transplants, and the endpoint map for whoever clicks its name."""
    figure = go.Figure()
    for kind, name in (("attention", "attention"), ("MLP", "MLP"), ("other", "other, and outside layers")):
        bars = _bars(info, kind, name)
        if bars.x:
            figure.add_trace(bars)
    transplants = _marks(info, "transplant", "single transplant", "diamond")
    if transplants.x:
        figure.add_trace(transplants)
    endpoint = _marks(info, "endpoint", "gradient at adapted (click)", "circle")
    if endpoint.x:
        figure.add_trace(endpoint.update(visible="legendonly"))
    subtitle = f"Change of the refusal log-odds when a block moves back to the base. {checks(info.completeness)}"
    theme.frame(figure, title(info), subtitle, plot_height=330, legend_rows=2)
    figure.add_hline(y=0, line={"color": theme.MUTED, "width": 1})
    figure.update_layout(barmode="overlay")
    figure.update_yaxes(title_text="gain in refusal log-odds (nats)")
    info.axis.show(figure)
    return figure


def rows(info: SafetyMapInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a block; gains in nats of refusal log-odds."""
    return [
        {
            "block": each.place.block, "layer": each.place.layer, "gain along the path": each.path, "low": each.low,
            "high": each.high, "share": each.share, "cost (KL)": each.cost, "gradient at adapted": each.endpoint,
            "single transplant": each.transplant,
        }
        for each in info.blocks
    ]  # fmt: skip


def plot(probe: ProbeResult) -> go.Figure:
    """Where safety was lost, block by block."""
    return draw(compute(probe))
