"""The whole probe of one set of checkpoints: separation, drift, attribution, ceiling. One model in memory at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn.functional import cosine_similarity

from vlsurgery.probes.attribution import attribute, nothing_lost
from vlsurgery.probes.directions import Directions, contrast, difference_of_means, is_harmful, select, separate
from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.evaluation.judges import judge
from vlsurgery.probes.interventions import LiveBlend
from vlsurgery.probes.models.models import ChatModel, load
from vlsurgery.probes.prompts.prompts import HARMFUL_SETS, Prompt
from vlsurgery.probes.results import (
    BlockGain,
    Ceiling,
    Completeness,
    CosineRow,
    ProbeResult,
    Selected,
    SeparationRow,
    Target,
    TargetsResult,
    Transplant,
)
from vlsurgery.probes.targets import in_words, working, working_prompts
from vlsurgery.surgery.alignment.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.runtime.progress import Track, silent

PICTURED = "benign"  # the kind of picture that both harmful and harmless requests come with


@dataclass(frozen=True)
class Findings:
    """What a probe found. directions: "<role>/<modality>/<position>" -> [layers, hidden] float32."""

    result: ProbeResult
    directions: dict[str, Tensor]
    targets: TargetsResult


@dataclass
class _Notebook:
    """What has been found so far, while one model after the other is looked at."""

    prompts: Sequence[Prompt]
    track: Track
    rows: list[SeparationRow] = field(default_factory=list)
    directions: dict[tuple[str, str], Directions] = field(default_factory=dict)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    selected: Selected | None = None
    attribution: list[BlockGain] = field(default_factory=list)
    transplants: list[Transplant] = field(default_factory=list)
    completeness: Completeness | None = None
    ceiling: Ceiling | None = None

    def look(self, role: str, chat: ChatModel) -> None:
        """Directions and separation of one model, with and without a picture."""
        for modality in ("text", PICTURED) if chat.sees else ("text",):
            made_on, shown_on = (contrast(self.prompts, split, modality) for split in ("fit", "report"))
            if not (_has_both(made_on) and _has_both(shown_on)):
                self.notes.append(f"{role}: {modality} prompts lack a harmful or a harmless side, so no direction")
                continue
            directions = difference_of_means(chat, made_on)
            self.directions[role, modality] = directions
            self.rows += separate(chat, shown_on, directions, role, modality)

    def answer(self, role: str, chat: ChatModel, prompts: Sequence[Prompt]) -> None:
        """Note down a model's own completions. A picture is left out where the model does not see."""
        asked = list(prompts) if chat.sees else [in_words(prompt) for prompt in prompts]
        written = complete(chat, asked, f"asking {role} for its own answers", self.track)
        self.targets += [
            Target(prompt=prompt.id, role=role, text=each.text, ids=list(each.ids), verdict=judge(each.text, prompt))
            for prompt, each in zip(prompts, written, strict=True)
        ]


def probe(checkpoints: Mapping[str, Checkpoint], prompts: Sequence[Prompt], track: Track = silent) -> Findings:
    """Look into base, adapted, graft and every safety role, and say which blocks lost refusals.

    Directions are made on `fit`, selected on `select` and shown on `report`; attribution uses `fit` alone.
    """
    book = _Notebook(prompts, track)
    work = working_prompts(prompts)
    _base(book, checkpoints["base"], work)
    _adapted(book, checkpoints, work)
    for role in checkpoints:
        if role.startswith("safety"):
            chat = load(checkpoints[role])
            book.notes += chat.notes
            book.look(role, chat)
    result = ProbeResult(
        rows=book.rows,
        cosines=_cosines(book.directions),
        selected=book.selected,
        attribution=book.attribution,
        transplants=book.transplants,
        completeness=book.completeness,
        ceiling=book.ceiling,
        notes=book.notes,
        verdict=_verdict(book),
    )
    tensors = {
        f"{role}/{modality}/{position}": found.values[at].float().clone()
        for (role, modality), found in book.directions.items()
        for at, position in enumerate(found.positions)
    }
    return Findings(result, tensors, TargetsResult(rows=book.targets))


def _has_both(prompts: Sequence[Prompt]) -> bool:
    """Whether there are two requests and more on either side of a contrast: enough for a direction and its halves."""
    sides = [{prompt.request for prompt in prompts if is_harmful(prompt) == side} for side in (True, False)]
    return all(len(requests) > 1 for requests in sides)


def _base(book: _Notebook, checkpoint: Checkpoint, work: Sequence[Prompt]) -> None:
    chat = load(checkpoint)
    book.notes += chat.notes
    book.answer("base", chat, [prompt for prompt in work if prompt.set in HARMFUL_SETS])
    book.look("base", chat)
    chosen_on = contrast(book.prompts, "select", "text")
    if ("base", "text") in book.directions and _has_both(chosen_on):
        book.selected = select(chat, chosen_on, book.directions["base", "text"])


def _adapted(book: _Notebook, checkpoints: Mapping[str, Checkpoint], work: Sequence[Prompt]) -> None:
    chat = load(checkpoints["adapted"])
    book.notes += chat.notes
    book.answer("adapted", chat, chat.answerable(work))
    book.look("adapted", chat)
    live = LiveBlend(chat, align({role: checkpoints[role] for role in ("adapted", "base")}), ("base",))
    with live.at(live.everywhere(base=1.0)):
        book.look("graft", chat)
    fitted_on = working(chat, book.prompts, TargetsResult(rows=book.targets), "fit")
    if reason := nothing_lost(fitted_on):
        book.notes.append(f"no attribution: {reason}")
        return
    book.attribution, book.transplants, book.completeness, book.ceiling = attribute(live, fitted_on, book.track)


def _cosines(directions: Mapping[tuple[str, str], Directions]) -> list[CosineRow]:
    """Each direction's cosine with the base's direction in words, where positions and shapes agree."""
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


def _verdict(book: _Notebook) -> str:
    """What was found, in a few plain sentences."""
    said = []
    if book.selected is None:
        said.append("No direction could be made.")
    elif book.selected.auroc <= book.selected.null:
        said.append(
            f"The base does not tell harmful from harmless: its best AUROC of {book.selected.auroc:.2f} is within what "
            f"chance gives ({book.selected.null:.2f})."
        )
    else:
        said.append(
            f"The base tells harmful from harmless (AUROC {book.selected.auroc:.2f} at layer {book.selected.layer})."
        )
    path = sorted((g for g in book.attribution if g.method == "path"), key=lambda g: -g.gain)
    if path and book.completeness:
        share = sum(gain.share or 0.0 for gain in path[:4])
        names = ", ".join(gain.block for gain in path[:4])
        said.append(
            f"Of the {book.completeness.measured:.1f} nats of refusal log-odds between adapted and graft, {share:.0%} "
            f"sit in the four blocks {names}."
        )
    elif not path:
        said.append("No loss of refusals to attribute was found.")
    return " ".join(said)
