"""Where safety was lost: what moving each block back to the base gives, along the path and by transplant; and inside of
the blocks, which sites and heads hold it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import plotly.graph_objects as go

from vlsurgery.figures import map_panels, theme
from vlsurgery.figures.blocks import BlockAxis, Place, block_axis, split, wanted_blocks
from vlsurgery.figures.choice import one_of
from vlsurgery.figures.parts import Inside, inside, short
from vlsurgery.figures.wording import listed, number, percent, signed
from vlsurgery.probes.results import (
    AttributionNull,
    BlockNull,
    Completeness,
    Estimate,
    Interaction,
    ProbeResult,
    TradeoffResult,
)
from vlsurgery.surgery.results import DiffResult

LEVELS = ("block", "site", "head")
SORTS = ("layer", "size")
MEASURES = ("gain", "share", "cost", "weight change", "conflict")
TOLD = 4  # blocks that a sentence lists
COMPACT_FROM = 41  # layers, from which blocks would be bars of a few pixels
INSIDE_SHOWN = 10  # blocks that can be looked into, those with the largest gains
COEFFICIENT = "coefficient"


@dataclass(frozen=True)
class BlockFinding:
    """All that results say of one block; what they don't say is None. Gains are in nats of refusal log-odds.

    low, high: the 95% interval of `path` over requests. beyond_map: transplant less path. needed: the gain above which
    the block passes the null of permuted prompts. weight_change: the VL delta over the norm. conflict: share of entries
    in which the two deltas point opposite ways. coefficients: of the merge that was chosen, by source.
    """

    place: Place
    path: float | None
    low: float | None
    high: float | None
    share: float | None
    cost: float | None
    endpoint: float | None
    transplant: float | None
    beyond_map: Estimate | None = None
    disagrees: bool = False
    needed: float | None = None
    p: float | None = None
    weight_change: float | None = None
    conflict: float | None = None
    coefficients: Mapping[str, float] = field(default_factory=dict)

    def value(self, by: str) -> float | None:
        """A measure by the name that `plot` takes."""
        if by.startswith(f"{COEFFICIENT} "):
            return self.coefficients.get(by.removeprefix(f"{COEFFICIENT} "))
        return {
            "gain": self.path,
            "share": self.share,
            "cost": self.cost,
            "weight change": self.weight_change,
            "conflict": self.conflict,
        }[by]


@dataclass(frozen=True)
class SafetyMapInfo:
    """Every block that is shown once, by its place on the axis, and the checks of the map.

    top: up to three blocks with the largest positive gains along the path, largest first. top_share: their part of
    the map's sum; None where the sum isn't positive, so that there is no loss to share. clear: as many of `top` as pass
    the null and have intervals that stand clear of the largest gain that is not among them; all of them where neither
    null nor interval is known. by, level, sort: as `plot` takes them. measures: those that there are. inside: the
    blocks that can be looked into, largest gain first.
    """

    blocks: tuple[BlockFinding, ...]
    axis: BlockAxis
    completeness: Completeness | None
    top: tuple[BlockFinding, ...]
    top_share: float | None
    clear: tuple[BlockFinding, ...]
    null: AttributionNull | None = None
    interaction: Interaction | None = None
    by: str = "gain"
    level: str = "block"
    sort: str = "layer"
    measures: tuple[str, ...] = ("gain",)
    inside: tuple[Inside, ...] = ()
    all_inside: tuple[Inside, ...] = ()


def compute(
    probe: ProbeResult,
    by: str = "gain",
    level: str | None = None,
    layers: Sequence[int] | None = None,
    top: int | None = None,
    sort: str = "layer",
    diff: DiffResult | None = None,
    tradeoff: TradeoffResult | None = None,
) -> SafetyMapInfo:
    """Bring together maps, transplants, null and parts, block by block; what can be chosen: see `plot`."""
    found, parts = _findings(probe, diff, tradeoff), inside(probe.attribution)
    sizes = {name: abs(each.path or 0.0) for name, each in found.items()}
    kept = wanted_blocks(sizes, layers, top)
    shown = [found[block] for block in kept]
    total = sum(each.path or 0.0 for each in found.values())
    gains = sorted((f for f in found.values() if f.path is not None and f.path > 0), key=lambda f: -(f.path or 0))
    largest = sorted((block for block in kept if block in parts), key=lambda block: -sizes[block])
    measures = _measures(shown) or ("gain",)
    deep = len({each.place.layer for each in shown if each.place.layer is not None}) >= COMPACT_FROM
    levels = [each for each in LEVELS if each == "block" or parts]
    chosen_level = one_of("level", level, levels) if level else "site" if deep and parts else "block"
    sort = one_of("sort", sort, SORTS)
    axis = block_axis(kept) if sort == "layer" else _ranked(sorted(kept, key=lambda block: -sizes[block]))
    placed = [replace(each, place=axis.places[each.place.block]) for each in shown]
    return SafetyMapInfo(
        blocks=tuple(sorted(placed, key=lambda f: f.place.x)),
        axis=axis,
        completeness=probe.completeness,
        top=tuple(gains[:3]),
        top_share=sum(f.path or 0 for f in gains[:3]) / total if total > 0 else None,
        clear=_clear(gains, probe.attribution_null),
        null=probe.attribution_null,
        interaction=probe.interaction,
        by=one_of("by", by, measures),
        level=chosen_level,
        sort=sort,
        measures=measures,
        inside=tuple(parts[block] for block in largest[:INSIDE_SHOWN]),
        all_inside=tuple(parts[block] for block in kept if block in parts),
    )


def _findings(probe: ProbeResult, diff: DiffResult | None, tradeoff: TradeoffResult | None) -> dict[str, BlockFinding]:
    """Every block of which a probe says anything, with what diff and merge say of it."""
    path, endpoint = probe.block_gains("path"), probe.block_gains("endpoint")
    transplants = {row.block: row for row in probe.transplants}
    null = probe.attribution_null
    tested = {row.block: row for row in null.blocks} if null else {}
    changes = {summary.key: summary.metrics for summary in diff.blocks} if diff else {}
    coefficients = _coefficients(tradeoff)
    found = {}
    for block, place in block_axis([*path, *endpoint, *transplants]).places.items():
        gain, moved, test, change = path.get(block), transplants.get(block), tested.get(block), changes.get(block)
        found[block] = BlockFinding(
            place=place,
            path=gain.gain if gain else None,
            low=gain.low if gain else None,
            high=gain.high if gain else None,
            share=gain.share if gain else None,
            cost=gain.cost if gain else None,
            endpoint=endpoint[block].gain if block in endpoint else None,
            transplant=moved.gain if moved else None,
            beyond_map=moved.beyond_map if moved else None,
            disagrees=moved.disagrees if moved else False,
            needed=_needed(gain.gain, test, null.threshold) if gain and test and null else None,
            p=test.p if test else None,
            weight_change=change.vl.relative if change and change.vl else None,
            conflict=change.between.sign_conflict if change and change.between else None,
            coefficients=coefficients.get(block, {}),
        )
    return found


def _needed(gain: float, test: BlockNull, threshold: float | None) -> float | None:
    """The gain at which a block's t would be the threshold, its spread and its controls being what they are."""
    if threshold is None or not test.t:
        return None
    return gain - test.difference + threshold * test.difference / test.t


def _coefficients(tradeoff: TradeoffResult | None) -> dict[str, dict[str, float]]:
    point = tradeoff.chosen(tradeoff.policy) if tradeoff else None
    return dict(point.coefficients or {}) if point else {}


def _measures(found: Iterable[BlockFinding]) -> tuple[str, ...]:
    """The measures that any block has a value of."""
    blocks = list(found)
    sources = dict.fromkeys(source for each in blocks for source in each.coefficients)
    named = [*MEASURES, *(f"{COEFFICIENT} {source}" for source in sources)]
    return tuple(by for by in named if any(each.value(by) is not None for each in blocks))


def _ranked(blocks: Sequence[str]) -> BlockAxis:
    """An axis on which blocks stand one after the other, each with its name."""
    places = {block: Place(block, *split(block), float(at)) for at, block in enumerate(blocks)}
    every = max(1, round(len(blocks) / 30))
    ticks = tuple((place.x, block) for at, (block, place) in enumerate(places.items()) if at % every == 0)
    return BlockAxis(places, ticks, 0.8)


def _clear(gains: Sequence[BlockFinding], null: AttributionNull | None) -> tuple[BlockFinding, ...]:
    """As many of the three largest gains as all pass the null and have intervals above the largest of the others."""
    passing = [gain for gain in gains if null is None or gain.place.block in null.found]
    for count in range(min(3, len(passing)), 0, -1):
        named = passing[:count]
        rest = max((gain.path or 0.0 for gain in gains if gain not in named), default=0.0)
        if all(gain.low is None or gain.low > rest for gain in named):
            return tuple(named)
    return ()


def title(info: SafetyMapInfo) -> str:
    if not info.blocks:
        return "No block was attributed"
    if info.top_share is None:
        return "Moving blocks back to the base brings back no refusal"
    if info.null is not None and info.null.reason is not None:
        return "Where refusals were lost was measured, but not held against a null: no block is named"
    if info.null is not None and not info.null.found:
        return "No block brings back lost refusals more than permuted prompts do"
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


def tested(null: AttributionNull | None) -> str:
    """What the null says, in words; nothing where results are older than it."""
    if null is None:
        return ""
    if null.reason is not None:
        return f"No null: {null.reason}."
    found, count = null.found, len(null.blocks)
    start = f"{len(found)} of {count} blocks pass" if found else f"None of {count} blocks passes"
    return (
        f"{start} the null by permuted prompts ({null.lost} requests whose refusal was lost, {null.controls} to go on"
        f" answering, {null.draws} permutations, the largest of all blocks each time)."
    )


def together(interaction: Interaction | None) -> str:
    """How blocks work together, measured: what they bring in company, against the sum of what each brings alone."""
    if interaction is None:
        return ""
    whole, alone, difference = (
        _estimate(each) for each in (interaction.together, interaction.singles, interaction.difference)
    )
    low, high = interaction.difference.low, interaction.difference.high
    kind = "whether they help or replace one another can't be told"
    if low is not None and high is not None and not low <= 0 <= high:
        kind = "they need one another" if low > 0 else "they replace one another"
    return (
        f"{listed(interaction.blocks)} moved together bring back {whole} nats; alone they bring {alone} in sum:"
        f" a difference of {difference}, so that {kind}."
    )


def parted(info: SafetyMapInfo) -> str:
    """Where single transplants and the map disagree, block by block; nothing where it was not compared."""
    compared = [each for each in info.blocks if each.beyond_map is not None]
    if not compared:
        return ""
    apart = sorted((each for each in compared if each.disagrees), key=lambda f: -abs((f.beyond_map or NONE).value or 0))
    if not apart:
        return "Map and transplants disagree on no block beyond their uncertainty."
    told = [f"{each.place.block} ({signed((each.beyond_map or NONE).value or 0.0)})" for each in apart[:TOLD]]
    more = f" and {len(apart) - TOLD} more" if len(apart) > TOLD else ""
    return (
        f"Transplant less map, in nats, where the interval excludes 0 for all blocks at once: {listed(told)}{more}."
        " Above 0 the block brings more alone than in company."
    )


NONE = Estimate(value=None)


def _estimate(found: Estimate) -> str:
    bounds = "" if found.low is None or found.high is None else f" [{signed(found.low)} to {signed(found.high)}]"
    return f"{signed(found.value or 0.0)}{bounds}"


def said(info: SafetyMapInfo) -> str:
    """All that the null, the interaction and the comparison say, in sentences."""
    return " ".join(words for words in (tested(info.null), together(info.interaction), parted(info)) if words)


def draw(info: SafetyMapInfo) -> go.Figure:
    """The blocks, by a measure that a menu changes, and below what is inside of one of them, which a menu picks."""
    figure = map_panels.draw(info)
    subtitle = f"Change of the refusal log-odds when a block moves back to the base. {checks(info.completeness)}"
    return map_panels.framed(figure, info, title(info), subtitle)


def rows(info: SafetyMapInfo) -> list[dict[str, str | int | float | None]]:
    """What is drawn, a record a block, and one a site or head of those that can be looked into; gains in nats."""
    told: list[dict[str, str | int | float | None]] = [
        {
            "block": each.place.block, "layer": each.place.layer, "site": None, "head": None, "gain": each.path,
            "gain low": each.low, "gain high": each.high, "share": each.share, "cost": each.cost,
            "alone": each.transplant, "at adapted": each.endpoint, "needed to pass the null": each.needed, "p": each.p,
            "weight change": each.weight_change, "sign conflict": each.conflict,
            **{f"coefficient {source}": value for source, value in each.coefficients.items()},
        }
        for each in info.blocks
    ]  # fmt: skip
    return told + [
        {
            "block": block.block, "layer": split(block.block)[0], "site": part.site, "head": part.head,
            "gain": short(part.gain), "gain low": part.low, "gain high": part.high,
        }
        for block in info.inside
        for part in (*block.sites, *block.heads)
    ]  # fmt: skip


def plot(
    probe: ProbeResult,
    by: str = "gain",
    level: str | None = None,
    layers: Sequence[int] | None = None,
    top: int | None = None,
    sort: str = "layer",
    diff: DiffResult | None = None,
    tradeoff: TradeoffResult | None = None,
    dark: bool = False,
) -> go.Figure:
    """Where safety was lost, block by block, and inside of the blocks.

    by: what is shown first, "gain", "share", "cost", or, with a diff, "weight change" and "conflict" (share of entries
    in which the two deltas point opposite ways), or, with a trade-off, "coefficient base"; a menu offers the others.
    level: "block" for bars, "site" or "head" for a map of layers by sites or heads, the form for deep models; None
    chooses. layers, top: only these layers, and of their blocks the largest gains. sort: "layer" or "size". dark: for
    dark paper. Raises SurgeryError where there is nothing of that name.
    """
    return theme.shown(draw(compute(probe, by, level, layers, top, sort, diff, tradeoff)), dark)
