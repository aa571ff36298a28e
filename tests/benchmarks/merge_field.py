"""What merges of one trio are compared on: the live merge, and `fit`, `select` and `report` prompts with their targets.

Targets are the base's and the adapted model's own completions, as in a case; here `report` prompts have them too, so
that chosen merges are measured there once by the same objective.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from torch import Tensor

from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.evaluation.judges import STANDARD, Judge, checked
from vlsurgery.probes.evaluation.judging import exchange
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.merge_parameters import MergeParameter
from vlsurgery.probes.models import ChatModel, load
from vlsurgery.probes.objective_scorer import MAX_FIT, MAX_SELECT, ObjectiveScorer
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt, english_prompts
from vlsurgery.probes.results import Target, TargetsResult
from vlsurgery.probes.specimens import miniature, smollm2
from vlsurgery.probes.targets import evenly_spaced, without_picture, working_prompts, working_set
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint

TOKENS: Final = 24  # of a completion
SPLITS: Final = ("fit", "select", "report")
SOURCES: Final = ("base", "safety")


@dataclass(frozen=True)
class Field:
    """The live merge of a trio and the prompts of each split, scored by the objective.

    alignment: of base, adapted, safety, and `unaligned` where there is one. targets: of all splits.
    """

    live: InMemoryMerge
    alignment: Alignment
    prompts: Mapping[str, Sequence[Prompt]]
    targets: TargetsResult
    scorers: Mapping[str, ObjectiveScorer]

    @classmethod
    def of(cls, checkpoints: Mapping[str, Checkpoint], count: int, folder: Path) -> "Field":
        """count: prompts of `fit` and of `select`; `report` has twice as many. folder: keeps completions."""
        prompts, judge = _asked(checkpoints["adapted"].path, count)
        targets = _targets(checkpoints, [p for each in prompts.values() for p in each], judge, folder)
        alignment = align(checkpoints)
        chat = load(checkpoints["adapted"])
        live = InMemoryMerge(chat, alignment, SOURCES)
        scorers = {split: scored(chat, prompts[split], targets, split) for split in SPLITS}
        return cls(live, alignment, prompts, targets, scorers)

    @contextmanager
    def holding(self, make: Callable[[MergeParameter], Tensor]) -> Iterator[ChatModel]:
        """The live model with weights that `make` gives for each parameter that is merged; then the adapted ones."""
        before = [entry.of(entry.parameter.data).clone() for entry in self.live.entries]
        try:
            for entry in self.live.entries:
                entry.of(entry.parameter.data).copy_(make(entry))
            yield self.live.chat
        finally:
            for entry, values in zip(self.live.entries, before, strict=True):
                entry.of(entry.parameter.data).copy_(values)


def scored(chat: ChatModel, prompts: Sequence[Prompt], targets: TargetsResult, split: str) -> ObjectiveScorer:
    """A split's prompts by the objective; `report` ones as many as there are."""
    most = MAX_FIT if split == "fit" else MAX_SELECT if split == "select" else replace(MAX_FIT, keep=256)
    working = working_set(chat, [replace(prompt, split="select") for prompt in prompts], targets, "select")
    return ObjectiveScorer.of(chat, working, split, most)


def _asked(adapted: Path, count: int) -> tuple[dict[str, list[Prompt]], Judge]:
    """Prompts of each split, evenly spaced over sets and modalities, and the judge that knows their form."""
    specimen = miniature.specimen_of(adapted)
    judge = STANDARD if specimen is None else miniature.FormJudge()
    if specimen is not None:
        every = miniature.prompts(specimen.seed)
    else:
        every = english_prompts() if smollm2.trio_of(adapted) is None else smollm2.prompts()
    found = {}
    for split in SPLITS:
        worked = working_prompts([replace(p, split="select") for p in every if p.split == split])
        in_order = sorted(worked, key=lambda prompt: (prompt.set, prompt.modality))
        most = 2 * count if split == "report" else count
        found[split] = [replace(prompt, split=split) for prompt in evenly_spaced(in_order, most)]
    return found, judge


def _targets(
    checkpoints: Mapping[str, Checkpoint], prompts: Sequence[Prompt], judge: Judge, folder: Path
) -> TargetsResult:
    """What base and adapted answer to the prompts, from the file that keeps it or asked now."""
    identity = [checkpoints[role].identity for role in ("base", "adapted")]
    key = hashlib.sha256(json.dumps([identity, [prompt.id for prompt in prompts]]).encode()).hexdigest()[:12]
    kept = folder / f"targets-{key}.json"
    if kept.is_file():
        return TargetsResult.load(kept)
    records = []
    for role in ("base", "adapted"):
        chat = load(checkpoints[role])
        mine = [prompt for prompt in prompts if role == "adapted" or prompt.set in HARMFUL_SETS]
        asked = chat.answerable(mine) if chat.sees else [without_picture(prompt) for prompt in mine]
        written = complete(chat, asked, role, tokens=TOKENS)
        exchanges = [exchange(p, each.text, not each.finished) for p, each in zip(asked, written, strict=True)]
        records += [
            Target(prompt=prompt.id, role=role, text=each.text, ids=list(each.ids), verdict=verdict.label)
            for prompt, each, verdict in zip(asked, written, checked(judge, exchanges), strict=True)
        ]
    result = TargetsResult(records=records)
    folder.mkdir(parents=True, exist_ok=True)
    result.save(kept)
    return result


def values_of(alignment: Alignment, entry: MergeParameter) -> dict[str, Tensor]:
    """Role -> its tensor at a merged parameter, for the roles that have it."""
    return {role: alignment.load(entry.pair, role) for role in entry.pair.parts}
