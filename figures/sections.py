"""What the report says of each figure: how to read it, what it does not show, and how to get it where it is missing."""

from dataclasses import dataclass
from types import ModuleType

import plotly.graph_objects as go

from vlsurgery.figures import (
    behaviour as behaviour_figure,
    block_effects,
    coefficients,
    cosines,
    direction_drift,
    frontier,
    heads,
    lens,
    outcomes,
    overlap,
    patching,
    price,
    projections,
    safety_layers,
    safety_map,
    spectra,
    weight_change,
)
from vlsurgery.figures.embedding import Rows
from vlsurgery.probes.results import MEAN_DIFFERENCE, BehaviourResult, ProbeResult, TradeoffResult
from vlsurgery.surgery.results import DiffResult, Result


@dataclass(frozen=True)
class Section:
    """One figure with its words.

    lead: what the step itself said of its result. figure: None where there is nothing to draw; `missing` then says
    why and what to do. commands: what writes the merge at each position of the figure's slider. rows: what is drawn,
    as a table: one flat record a thing drawn, for readers of text and as CSV.
    """

    anchor: str
    title: str
    lead: str
    figure: go.Figure | None
    read: str
    not_shown: str
    missing: str
    commands: tuple[str, ...] = ()
    rows: Rows = ()


def _drawn(
    figure: ModuleType, result: Result | None, command: str, empty: str = ""
) -> tuple[go.Figure | None, Rows, str]:
    """A figure and its table, or the reason why there is none: no result, or a result with nothing to draw.

    figure: the figure's module, with `compute`, `draw` and `rows`. command: what makes the result. empty: why the
    result, if there is one, has nothing to draw.
    """
    if result is None:
        return None, (), f"Not measured yet. This makes it: `{command}`"
    if empty:
        return None, (), empty
    info = figure.compute(result)
    return figure.draw(info), figure.rows(info), ""


def behaviour_section(behaviour: BehaviourResult | None) -> Section:
    empty = "" if behaviour is None or behaviour.records else "The evaluation holds no rows."
    figure, rows, missing = _drawn(behaviour_figure, behaviour, "vlsurgery evaluate", empty)
    return Section(
        "behaviour",
        "What the models do",
        "",
        figure,
        "Each line is a role. On the left a longer solid bar means more harmful requests refused; on the right, more"
        " harmless ones answered. Compare adapted with base for what adaptation cost, and merged with both for what"
        " came back. Blank, noise and ordinary pictures are controls: they have nothing to do with the request.",
        "How harmful a complying answer is: refusing, complying and neither are all that the judge tells apart. Prompts"
        " outside these sets may fare otherwise. Answers are greedy; sampling may differ.",
        missing,
        rows=rows,
    )


def outcomes_section(behaviour: BehaviourResult | None) -> Section:
    figure, rows, missing = _drawn(
        outcomes, behaviour, "vlsurgery evaluate", "" if behaviour is None else _why(behaviour)
    )
    return Section(
        "outcomes",
        "Where the base's refusals went",
        "",
        figure,
        "Each line is a role, on the requests that the base refuses. The part in the text's colour is what adaptation"
        " cost: the model now does what it was asked. Hatched is not safety but damage: words that answer nothing. A"
        " merge has brought back what its coloured part is longer than the adapted model's.",
        "Refusals that the base never made: a model that refuses more than the base shows no gain here. What refuses"
        " harmless requests too shows no cost either; the figure above does.",
        missing,
        rows=rows,
    )


def _why(behaviour: BehaviourResult) -> str:
    """Why no row says what became of the base's refusals; nothing where one does."""
    info = outcomes.compute(behaviour)
    if info.groups:
        return ""
    reasons = "; ".join(info.reasons) or "no model beside the base was asked for harm"
    return f"No row says what became of the base's refusals: {reasons}."


def map_section(probe: ProbeResult | None, diff: DiffResult | None, tradeoff: TradeoffResult | None) -> Section:
    figure: go.Figure | None = None
    rows: Rows = ()
    missing, lead = "Not measured yet. This makes it: `vlsurgery probe`", ""
    if probe is not None:
        info = safety_map.compute(probe, diff=diff, tradeoff=tradeoff)
        lead = " ".join(words for words in (probe.verdict, safety_map.said(info)) if words)
        missing = "" if info.blocks else "The probe attributed no blocks; its notes below say why."
        if info.blocks:
            figure, rows = safety_map.draw(info), safety_map.rows(info)
    return Section(
        "safety-map",
        "Where safety was lost",
        lead,
        figure,
        "A bar is the refusal log-odds gained when that block of the adapted model moves back to the base while all"
        " others do so too (gradient times delta, averaged along the path); bars sum to the whole change. A diamond is"
        " the same block moved alone, measured. Where the diamond reaches further, blocks bring the same thing and"
        " replace one another; where the bar does, this one brings it only in company. A dash is what a block needs to"
        " stand out from permuted prompts. Below, one block is opened: its sites sum to it, its heads to its sites.",
        "What another training would give. Intervals are over requests, of this one trio, and those of heads and sites"
        " are each taken alone; where the same recipe was run from other seeds, or with the same seed on another"
        " machine, other blocks carried the loss. It locates the change of refusal, not of knowledge, and a negative"
        " bar only says that the base's block refuses less in this company. What the projector or the vision tower lost"
        " is outside it.",
        missing,
        rows=rows,
    )


def coefficients_section(tradeoff: TradeoffResult | None) -> Section:
    empty = "" if tradeoff is None or tradeoff.points else "The search holds no points."
    figure, rows, missing = _drawn(coefficients, tradeoff, "vlsurgery merge --auto", empty)
    return Section(
        "coefficients",
        "What was merged, and what was tried",
        tradeoff.verdict if tradeoff else "",
        figure,
        "Left: how much of the base and of the safety-tuned model goes into each block. Right: each point is a merge,"
        " by the harmful prompts it refuses and the other prompts it still answers as the adapted model does; the large"
        " ringed points are the best of each policy.",
        "Where safety lives. Coefficients are not identifiable: searches of equal quality can find quite different"
        " ones; they say what to do. The trade-off is measured on the prompts that points were chosen by, so chosen"
        " points look better here than they are: the table above is the fair comparison.",
        missing,
        rows=rows,
    )


def effects_section(tradeoff: TradeoffResult | None) -> Section:
    empty = (
        "" if tradeoff is None or tradeoff.effects else "The merge is the same in every block, so none was left out."
    )
    figure, rows, missing = _drawn(block_effects, tradeoff, "vlsurgery merge --auto", empty)
    return Section(
        block_effects.ANCHOR,
        "What each block brings",
        "",
        figure,
        "A point is how much worse the merge is without that block's coefficients, all others kept, as measured; a"
        " diamond, what the gradients predicted. Where the two part, log-odds are not linear so far away.",
        "What a block would bring alone: blocks replace one another, so that leaving out one of two that do the same"
        " costs little. Coefficients were chosen on these prompts, which favours the blocks that they are large in.",
        missing,
        rows=rows,
    )


NO_PRICES = (
    "No gradients of prompts were taken, so nothing is known of other prices. This takes them: `vlsurgery merge --auto"
    " --policy best --frontier`"
)


def frontier_section(tradeoff: TradeoffResult | None) -> Section:
    empty = "" if tradeoff is None or frontier.is_drawable(tradeoff) else NO_PRICES
    figure, rows, missing = _drawn(frontier, tradeoff, "vlsurgery merge --auto --frontier", empty)
    return Section(
        "frontier",
        "What strictness costs",
        "",
        figure,
        "The dotted curve is predicted, the points on solid lines were measured; where they part by more than their"
        " intervals, the prediction does not hold. A curve above and left of the uniform front buys refusals that one"
        " strength for all blocks does not. A click on a predicted point shows that merge's coefficients in the next"
        " figure.",
        "Behaviour in whole answers: refusing counts as soon as it is likelier than not where refusal and answer part."
        " The base itself, which may not see: its language model behind the adapted model's eyes is the graft."
        " Predictions are of fit prompts, measurements of select prompts; report prompts decide.",
        missing,
        rows=rows,
    )


def price_section(tradeoff: TradeoffResult | None) -> Section:
    known = tradeoff is not None and frontier.is_drawable(tradeoff)
    empty = "" if tradeoff is None or known else NO_PRICES
    figure, rows, missing = _drawn(price, tradeoff, "vlsurgery merge --auto", empty)
    return Section(
        price.ANCHOR,
        "Choose your own price",
        "",
        figure,
        "The dearer an over-refusal, the fewer harmless requests are refused, and the fewer harmful ones. The usual"
        " price is 2. The command writes the merge of the position that the slider shows, and measures it.",
        "What the merge does in whole answers: the command measures that on report prompts, which the prediction has"
        " not seen.",
        missing,
        rows=rows,
        commands=price.compute(tradeoff).commands if known and tradeoff is not None else (),
    )


def drift_section(probe: ProbeResult | None) -> Section:
    empty = (
        ""
        if probe is None or probe.records or probe.cosines
        else "The probe measured no directions; its notes say why."
    )
    figure, rows, missing = _drawn(direction_drift, probe, "vlsurgery probe", empty)
    return Section(
        "direction-drift",
        f"How the {probe.direction_name if probe else MEAN_DIFFERENCE} drifted",
        probe.direction_words if probe else "",
        figure,
        "Above: a curve near the grey band has kept the base's direction; one far below it has turned away. Below: 1"
        " means that a threshold along the model's own direction tells harmful from harmless without fault. A"
        " high curve below says that the two can be told apart from this token's state.",
        "That the model tells them apart, or acts on it: the states of nearly every model can be separated. Whether the"
        " base's direction carries refusals is measured, and said above; of other models' directions it is not. The"
        " band comes from half of the prompts and is therefore a little too low. Of the intervals, each is taken alone;"
        " only the dashed line of shuffled labels accounts for looking at every layer.",
        missing,
        rows=rows,
    )


def lens_section(probe: ProbeResult | None) -> Section:
    empty = "" if probe is None or probe.lens else "The probe read no layers; its notes say why."
    figure, rows, missing = _drawn(lens, probe, "vlsurgery probe", empty)
    return Section(
        "lens",
        "Where a refusal forms",
        probe.template_words if probe else "",
        figure,
        "Follow a role from left to right: where its line for harmful requests leaves the one for harmless ones, the"
        " model begins to write a refusal. An adapted model that never leaves lost what comes before; one that turns"
        " back in its last layers lost it there.",
        "What a layer knows but does not yet say: the final norm and head are made for the last layer, and read early"
        " ones poorly. Only the first token of an answer is read, among tokens with which the base's refusals begin.",
        missing,
        rows=rows,
    )


def patching_section(probe: ProbeResult | None) -> Section:
    empty = "" if probe is None or probe.patching else "The probe patched nothing; its notes say why."
    figure, rows, missing = _drawn(patching, probe, "vlsurgery probe", empty)
    return Section(
        "patching",
        "What the picture does, and which kind of loss it is",
        probe.loss_words if probe else "",
        figure,
        "A line that is high early says that the layers behind it still do their work: given the base's states, the"
        " adapted model refuses. Where image tokens bring little and text tokens nearly all, what the picture's own"
        " states hold is not what was lost.",
        "Weights: states are moved, not blocks; the map above is about weights. Behind the last layer all tokens would"
        " give 1, were it not for the final norm and head, which stay the adapted model's.",
        missing,
        rows=rows,
    )


def projections_section(probe: ProbeResult | None) -> Section:
    empty = "" if probe is None or probe.projections else "The probe projected nothing; its notes say why."
    figure, rows, missing = _drawn(projections, probe, "vlsurgery probe", empty)
    return Section(
        "projections",
        "What the models hold of requests",
        "",
        figure,
        "Where a role's harmful and harmless ridges lie apart, the base's direction still tells them from each other in"
        " this model. Where both have moved to one side, the model treats everything alike. At the last instruction"
        " token it is read whether harm is recognised, behind it whether a refusal is meant.",
        "What the model's own direction would tell: only the base's is shown here; the AUROC above is of each model's"
        " own.",
        missing,
        rows=rows,
    )


def cosines_section(probe: ProbeResult | None) -> Section:
    there = probe is not None and any(len(each.keys) > 1 for each in probe.cosine_matrices)
    empty = "" if probe is None or there else "The probe has no two directions to compare."
    figure, rows, missing = _drawn(cosines, probe, "vlsurgery probe", empty)
    return Section(
        "cosines",
        "Whether the direction turned, or everything did",
        "",
        figure,
        "Above: inside the grey band a role's direction lies as near to the base's as any difference between halves of"
        " these prompts does. Below: a bright diagonal says that layers keep their direction; bright squares beside it,"
        " that it is carried on from layer to layer.",
        "That a direction that turned no longer works: ablating and adding it tell that. Shuffled labels are drawn on"
        " 64 report prompts at most, the directions themselves are made on fit prompts.",
        missing,
        rows=rows,
    )


def safety_layers_section(probe: ProbeResult | None) -> Section:
    empty = "" if probe is None or probe.safety_layers else "The probe compared no states; its notes say why."
    figure, rows, missing = _drawn(safety_layers, probe, "vlsurgery probe", empty)
    return Section(
        "safety-layers",
        "From which layer on harm is held apart",
        "",
        figure,
        "A line that rises above 0 begins to treat harmful requests otherwise than harmless ones behind that layer. An"
        " adapted model whose line stays near 0 where the base's rises holds both alike.",
        "One direction: all that differs counts here, the topic and the length of requests too. A gap of 0 in the mean"
        " angle does not say that no direction tells them apart.",
        missing,
        rows=rows,
    )


def weights_section(diff: DiffResult | None) -> Section:
    empty = "" if diff is None or diff.blocks else "The diff has no blocks in common."
    figure, rows, missing = _drawn(weight_change, diff, "vlsurgery diff BASE ADAPTED [SAFETY]", empty)
    said = weight_change.said(weight_change.compute(diff)) if diff and diff.blocks else ""
    return Section(
        "weight-change",
        "How far the weights moved",
        " ".join(words for words in (diff.verdict if diff else "", said) if words),
        figure,
        "The higher a point, the more of that block's norm was changed. The cosine's sign says nothing by itself: both"
        " deltas contain the adapted weights, once with each sign, so that three unrelated models give −.5 and rounding"
        " alone gives a negative value. The grey bands are what they share by that: below its band, safety tuning moved"
        " a block back; above it, further on.",
        "Where safety went: weight change hardly tells.",
        missing,
        rows=rows,
    )


NO_DIRECTIONS = (
    "The diff measured norms alone. This measures directions too: `vlsurgery diff BASE ADAPTED --level full`"
)


def spectra_section(diff: DiffResult | None) -> Section:
    known = diff is not None and bool(spectra.compute(diff).spectra)
    figure, rows, missing = _drawn(spectra, diff, "vlsurgery diff BASE ADAPTED", "" if known else NO_DIRECTIONS)
    return Section(
        "spectra",
        "Along how many directions they moved",
        "",
        figure,
        "A dark cell is a matrix whose change lies in few directions. Below, a solid line above its dashed one at the"
        " left says the same of one matrix: the first directions hold more than a random change's do.",
        "That these directions matter for refusals. A change of high rank may, one of low rank need not.",
        missing,
        rows=rows,
    )


def heads_section(diff: DiffResult | None, probe: ProbeResult | None) -> Section:
    info = heads.compute(diff, probe)
    missing = "" if info.sheets else "Neither diff nor probe told heads apart; the diff says why tensor by tensor."
    if diff is None and probe is None:
        missing = "Not measured yet. This makes it: `vlsurgery diff BASE ADAPTED`"
    return Section(
        "heads",
        "Which heads moved, and which hold the loss",
        "",
        heads.draw(info) if info.sheets else None,
        "Each cell is a head of a layer, or an expert. The menu changes between what each has of the lost refusal and"
        " how far each moved.",
        "A null for every head: with hundreds of them, some intervals exclude 0 by chance. How far a head moved hardly"
        " says what it lost.",
        missing,
        rows=heads.rows(info),
    )


def overlap_section(diff: DiffResult | None) -> Section:
    known = diff is not None and bool(overlap.compute(diff).points)
    figure, rows, missing = _drawn(overlap, diff, "vlsurgery diff BASE ADAPTED", "" if known else NO_DIRECTIONS)
    return Section(
        "overlap",
        "Whether changes share directions",
        "",
        figure,
        "A line above its dashed one: the two changes, or a change and the base, have more directions in common than"
        " chance gives them.",
        "Intervals: a null is one expected value, so that a line slightly above it is no finding.",
        missing,
        rows=rows,
    )


def sections(
    diff: DiffResult | None,
    probe: ProbeResult | None,
    behaviour: BehaviourResult | None,
    tradeoff: TradeoffResult | None,
) -> tuple[Section, ...]:
    """All sections in reading order: what happens, where it came from, what was done, and the evidence below it."""
    return (
        behaviour_section(behaviour),
        outcomes_section(behaviour),
        map_section(probe, diff, tradeoff),
        heads_section(diff, probe),
        coefficients_section(tradeoff),
        effects_section(tradeoff),
        frontier_section(tradeoff),
        price_section(tradeoff),
        lens_section(probe),
        patching_section(probe),
        drift_section(probe),
        projections_section(probe),
        cosines_section(probe),
        safety_layers_section(probe),
        weights_section(diff),
        spectra_section(diff),
        overlap_section(diff),
    )
