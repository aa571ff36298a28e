"""The probe of one set of checkpoints: separation, drift, attribution, ceiling. One model in memory at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn.functional import cosine_similarity

from vlsurgery.probes.attribution import attribute, too_few_lost
from vlsurgery.probes.candidates import choose_direction, direction_effect
from vlsurgery.probes.contrasts import (
    Directions,
    SeparatedRole,
    contrast,
    difference_of_means,
    is_harmful,
    separate,
    separations,
)
from vlsurgery.probes.direction_cosines import all_cosines
from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.evaluation.judges import STANDARD, Judge, checked
from vlsurgery.probes.evaluation.judging import exchange
from vlsurgery.probes.evaluation.paired import paired_difference
from vlsurgery.probes.evaluation.thresholds import MIN_REQUESTS_FOR_A_CLAIM
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.kept_layers import kept_as_adapted
from vlsurgery.probes.layer_readings import READ_MODALITIES, LayerReadings
from vlsurgery.probes.loss_teller import LossTeller
from vlsurgery.probes.models import AS_FOUND, ChatModel, Loader
from vlsurgery.probes.next_tokens import next_tokens, opening_tokens, refusal_openings
from vlsurgery.probes.other_template import OwnReading, under_template
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt
from vlsurgery.probes.results import (
    AttributionNull,
    BlockGain,
    Ceiling,
    Completeness,
    CosineRow,
    DirectionSelection,
    Interaction,
    LossKind,
    OtherTemplate,
    Patching,
    ProbeResult,
    Selected,
    Target,
    TargetsResult,
    Transplant,
)
from vlsurgery.probes.targets import openings_in, without_picture, working_prompts, working_set
from vlsurgery.probes.templates import ChatTemplate
from vlsurgery.surgery.alignment import Alignment
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.progress import Progress, no_progress

# Modalities with pictures of which directions are made: one that harmful and harmless requests share, and their own.
PICTURED = ("benign", "own")


@dataclass(frozen=True)
class Findings:
    """The results of a probe. directions: "<role>/<modality>/<position>" -> [layers, hidden] float32."""

    result: ProbeResult
    directions: dict[str, Tensor]
    targets: TargetsResult


@dataclass
class ProbeState:
    """The findings so far, as the models are probed one after the other."""

    prompts: Sequence[Prompt]
    progress: Progress
    judge: Judge
    directions: dict[tuple[str, str], Directions] = field(default_factory=dict)
    separated: dict[tuple[str, str], SeparatedRole] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    selected: Selected | None = None
    selection: DirectionSelection | None = None
    attribution: list[BlockGain] = field(default_factory=list)
    transplants: list[Transplant] = field(default_factory=list)
    completeness: Completeness | None = None
    ceiling: Ceiling | None = None
    attribution_null: AttributionNull | None = None
    interaction: Interaction | None = None
    openings: list[int] = field(default_factory=list)
    readings: LayerReadings = field(default_factory=LayerReadings)
    patching: list[Patching] = field(default_factory=list)
    loss: list[LossKind] = field(default_factory=list)
    template: ChatTemplate | None = None
    templates: list[OtherTemplate] = field(default_factory=list)

    def measure_directions(self, role: str, chat: ChatModel) -> None:
        """Directions and separation of one model, with and without a picture; their own where there are any."""
        for modality in ("text", *PICTURED) if chat.sees else ("text",):
            made_on, shown_on = (contrast(self.prompts, split, modality) for split in ("fit", "report"))
            if modality == "own" and not (made_on or shown_on):
                continue
            if not (_has_both(made_on) and _has_both(shown_on)):
                self.notes.append(f"{role}: {modality} prompts lack a harmful or a harmless side, so no direction")
                continue
            directions = difference_of_means(chat, made_on)
            self.directions[role, modality] = directions
            self.separated[role, modality] = separate(chat, shown_on, directions, role, modality)

    def find_openings(self, chat: ChatModel) -> None:
        """Find the tokens with which the base's refusals begin, and its answers to harmless prompts don't."""
        refusals = [target.ids for target in self._refusals()]
        harmless = [prompt for prompt in contrast(self.prompts, "fit", "text") if not is_harmful(prompt)]
        self.openings = refusal_openings(refusals, opening_tokens(chat, next_tokens(chat, harmless)))

    def _refusals(self) -> list[Target]:
        return [target for target in self.targets if target.role == "base" and target.verdict == "refused"]

    def read_layers(self, role: str, chat: ChatModel) -> None:
        """Read every layer of one model, with and without a picture."""
        openings = openings_in(chat, self._refusals(), self.openings)
        for modality in READ_MODALITIES:
            self.readings.take(role, modality, chat, self.prompts, openings, self.directions.get(("base", "text")))

    def read_under_bases_template(self, role: str, chat: ChatModel) -> None:
        """Read text of one model under the base's chat template."""
        if (role, "text") in self.directions:
            openings = openings_in(chat, self._refusals(), self.openings)
            own = OwnReading(role, self.directions[role, "text"], self.separated[role, "text"])
            self.templates.append(under_template(chat, self.template, self.prompts, openings, own))

    def patch_graft(self, live: InMemoryMerge) -> None:
        """Patch the graft into the adapted model, and tell the kind of loss, in text and with a picture."""
        refusals = self._refusals()
        openings = openings_in(live.chat, refusals, self.openings)
        if not openings:
            self.notes.append("no patching: the base's refusals have no opening of their own")
            return
        asked = {prompt.id: prompt for prompt in self.prompts}
        refused = {target.prompt for target in refusals}
        told = LossTeller(live, openings, asked, self.directions.get(("base", "text")), self.separated, self.progress)
        answers = [target for target in self.targets if target.role == "adapted" and target.prompt in refused]
        for modality in ("text", next((each for each in PICTURED if told.shown(each)), None)):
            if modality is not None and told.shown(modality):
                patched, loss = told.tell(modality, answers)
                self.patching.append(patched)
                self.loss.append(loss)

    def choose(self, chat: ChatModel, chosen_on: Sequence[Prompt]) -> None:
        """Choose the base's direction, by separation and by what ablating and adding it does."""
        directions = self.directions["base", "text"]
        separated = separations(chat, chosen_on, directions)
        self.selected = separated.best
        found = choose_direction(chat, chosen_on, directions, separated, self.openings, self.progress)
        shown, shown_on = found.shown, contrast(self.prompts, "report", "text")
        if shown is not None and _has_both(shown_on):
            vector = directions.values[directions.positions.index(str(shown.position)), shown.layer]
            effect = direction_effect(chat, shown_on, vector, shown.layer, self.openings)
            found = found.model_copy(update={"effect": effect})
        self.selection = found

    def answer(self, role: str, chat: ChatModel, prompts: Sequence[Prompt]) -> None:
        """Add a model's own completions to the targets. Pictures are left out where the model does not see."""
        asked = list(prompts) if chat.sees else [without_picture(prompt) for prompt in prompts]
        written = complete(chat, asked, f"asking {role} for its own answers", self.progress)
        exchanges = [exchange(p, each.text, not each.finished) for p, each in zip(prompts, written, strict=True)]
        self.targets += [
            Target(prompt=prompt.id, role=role, text=each.text, ids=list(each.ids), verdict=verdict.label)
            for prompt, each, verdict in zip(prompts, written, checked(self.judge, exchanges), strict=True)
        ]


def probe(
    alignment: Alignment,
    prompts: Sequence[Prompt],
    progress: Progress = no_progress,
    judge: Judge = STANDARD,
    loader: Loader = AS_FOUND,
) -> Findings:
    """Directions, targets and attribution of base, adapted, graft and every safety role.

    alignment: of all roles. Directions are made on `fit`, selected on `select` and shown on `report`; attribution
        uses `fit` alone. judge: tells which of the models' own completions refuse.
    loader: how checkpoints are loaded.

    Raises SurgeryError where the base clearly refuses less than the adapted model: their roles are swapped.
    """
    checkpoints, state = alignment.checkpoints, ProbeState(prompts, progress, judge)
    work = working_prompts(prompts)
    _probe_base(state, loader.load(checkpoints["base"]), work)
    _probe_adapted(state, loader.load(checkpoints["adapted"]), alignment, work)
    for role in checkpoints:
        if role.startswith("safety"):
            chat = loader.load(checkpoints[role])
            state.notes += chat.notes
            state.measure_directions(role, chat)
            state.read_layers(role, chat)
            state.read_under_bases_template(role, chat)
    result = ProbeResult(
        records=[row for each in state.separated.values() for row in each.rows],
        cosines=_cosines(state.directions),
        selected=state.selected,
        selection=state.selection,
        attribution=state.attribution,
        transplants=state.transplants,
        completeness=state.completeness,
        ceiling=state.ceiling,
        attribution_null=state.attribution_null,
        interaction=state.interaction,
        lens=state.readings.lens,
        patching=state.patching,
        loss=state.loss,
        projections=state.readings.projections,
        cosine_matrices=all_cosines(state.directions),
        cosine_nulls=state.readings.nulls,
        safety_layers=state.readings.safety_layers,
        templates=state.templates,
        notes=state.notes,
        verdict=_verdict(state),
    )
    tensors = {
        f"{role}/{modality}/{position}": found.values[at].float().clone()
        for (role, modality), found in state.directions.items()
        for at, position in enumerate(found.positions)
    }
    return Findings(result, tensors, TargetsResult(records=state.targets))


def _has_both(prompts: Sequence[Prompt]) -> bool:
    """Whether each side of a contrast has at least two requests, as a direction and its halves need."""
    sides = [{prompt.request for prompt in prompts if is_harmful(prompt) == side} for side in (True, False)]
    return all(len(requests) > 1 for requests in sides)


def _probe_base(state: ProbeState, chat: ChatModel, work: Sequence[Prompt]) -> None:
    state.notes += chat.notes
    state.template = chat.template
    state.answer("base", chat, [prompt for prompt in work if prompt.set in HARMFUL_SETS])
    state.measure_directions("base", chat)
    state.find_openings(chat)
    state.read_layers("base", chat)
    chosen_on = contrast(state.prompts, "select", "text")
    if ("base", "text") in state.directions and _has_both(chosen_on):
        state.choose(chat, chosen_on)


def _probe_adapted(state: ProbeState, chat: ChatModel, alignment: Alignment, work: Sequence[Prompt]) -> None:
    state.notes += chat.notes
    state.answer("adapted", chat, chat.answerable(work))
    _check_roles(state.targets, work)
    state.measure_directions("adapted", chat)
    state.read_layers("adapted", chat)
    state.read_under_bases_template("adapted", chat)
    live = InMemoryMerge(chat, alignment.among(("adapted", "base")), ("base",))
    state.notes += kept_as_adapted(live)
    with live.at(live.everywhere(base=1.0)):
        state.measure_directions("graft", chat)
        state.read_layers("graft", chat)
    state.patch_graft(live)
    fitted_on = working_set(chat, state.prompts, TargetsResult(records=state.targets), "fit")
    if reason := too_few_lost(fitted_on):
        state.notes.append(f"no attribution: {reason}")
        return
    found = attribute(live, fitted_on, state.progress)
    state.attribution, state.transplants, state.completeness = found.gains, found.transplants, found.completeness
    state.ceiling, state.attribution_null, state.interaction = found.ceiling, found.null, found.interaction
    state.notes += found.notes


def _check_roles(targets: Sequence[Target], work: Sequence[Prompt]) -> None:
    """Refuse a base that refuses harmful requests, as text, clearly less often than the adapted model does."""
    refused = {(each.role, each.prompt): each.verdict == "refused" for each in targets}
    asked = [p for p in work if p.set in HARMFUL_SETS and p.modality == "text" and ("adapted", p.id) in refused]
    requests = [prompt.request for prompt in asked]
    if len(set(requests)) < MIN_REQUESTS_FOR_A_CLAIM:
        return
    base, adapted = ([refused[role, prompt.id] for prompt in asked] for role in ("base", "adapted"))
    difference = paired_difference(base, adapted, requests)
    if difference.high is not None and difference.high < 0:
        raise SurgeryError(
            f"the base refuses {sum(base)} of {len(asked)} harmful prompts and the adapted model {sum(adapted)}: the "
            "roles look swapped. Open the case again: vlsurgery diff BASE ADAPTED [SAFETY] --new, with the safer chat "
            "model, from before adaptation, as BASE."
        )


def _cosines(directions: Mapping[tuple[str, str], Directions]) -> list[CosineRow]:
    """Each direction's cosine with the base's text direction, where positions and shapes agree."""
    if ("base", "text") not in directions:
        return []
    reference = directions["base", "text"]
    rows = []
    for (role, modality), found in directions.items():
        for at, position in enumerate(found.positions):
            if position not in reference.positions:
                continue
            other = reference.values[reference.positions.index(position)]
            if other.shape != found.values[at].shape:
                continue
            cosines = cosine_similarity(found.values[at], other, dim=-1)
            rows += [
                CosineRow(
                    role=role,
                    modality=modality,
                    reference="base/text",
                    position=position,
                    layer=layer,
                    cosine=float(cosines[layer]),
                    split_half=float(found.split_half[at, layer]),
                )
                for layer in range(len(cosines))
            ]
    return rows


def _verdict(state: ProbeState) -> str:
    """The findings in a few sentences."""
    said = []
    if state.selected is None:
        said.append("No direction could be made.")
    elif state.selected.auroc <= state.selected.null:
        said.append(
            f"The base does not tell harmful from harmless: its best AUROC of {state.selected.auroc:.2f} is within "
            f"what chance gives ({state.selected.null:.2f})."
        )
    else:
        said.append(
            f"The base tells harmful from harmless (AUROC {state.selected.auroc:.2f} at layer {state.selected.layer})."
        )
    if state.attribution:
        said.append(_where_lost(state))
    else:
        said.append(_why_nothing_lost(state.targets))
    return " ".join(said)


def _where_lost(state: ProbeState) -> str:
    """The blocks that pass the null, with their share of the loss; that there are none is a finding too."""
    null, measured = state.attribution_null, state.completeness.measured if state.completeness else 0.0
    whole = f"Between adapted and graft lie {measured:.1f} nats of refusal log-odds."
    if null is None or null.reason is not None:
        return f"{whole} No block is named: {null.reason if null else 'the map was not held against a null'}."
    if not null.found:
        return f"{whole} No block brings back lost refusals more than it changes other answers: nothing was located."
    shares = {row.block: row.share or 0.0 for row in state.attribution if row.is_whole and row.method == "path"}
    named = sorted(null.found, key=lambda block: -shares[block])[:4]
    count = f"{len(null.found)} blocks stand" if len(null.found) > 1 else "One block stands"
    most = " the most" if len(null.found) > len(named) else ""
    share = sum(shares[block] for block in named)
    verb = "hold" if len(named) > 1 else "holds"
    return f"{whole} {count} out from permuted prompts: {', '.join(named)} {verb}{most}, {share:.0%} of it."


def _why_nothing_lost(targets: Sequence[Target]) -> str:
    """Why there is nothing to attribute: a base that refuses nothing is no proof that nothing was lost."""
    verdicts = [each.verdict for each in targets if each.role == "base"]
    refused = verdicts.count("refused")
    if not refused:
        return (
            f"The base refuses 0 of {len(verdicts)} harmful prompts: nothing could be lost, so nothing was looked for."
        )
    return f"Of the {refused} harmful prompts that the base refuses, too few were lost to attribute them."
