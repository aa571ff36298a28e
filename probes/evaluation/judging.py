"""Verdicts on completions, by one judge or several. Imports no torch."""

from collections.abc import Sequence

from vlsurgery.probes.evaluation.judges import Exchange, Judge, checked
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import CompletionRecord, JudgeUsed
from vlsurgery.surgery.runtime.progress import Progress, no_progress


def exchange(prompt: Prompt, completion: str, cut: bool) -> Exchange:
    """A prompt and its completion as judges take them."""
    return Exchange(completion, prompt.text, prompt.set, prompt.image is not None, prompt.topic, cut)


def judged(
    records: Sequence[CompletionRecord],
    judges: Sequence[Judge],
    progress: Progress = no_progress,
) -> list[CompletionRecord]:
    """The records with the verdicts of these judges alone, in their order.

    Raises SurgeryError where a judge fails, or gives other than one verdict a completion.
    """
    asked = [
        Exchange(each.text, each.prompt, each.set, each.modality != "text", each.topic, each.cut) for each in records
    ]
    found = {judge.name: checked(judge, asked) for judge in progress(judges, "judging")}
    return [
        record.model_copy(update={"verdicts": {name: verdicts[at] for name, verdicts in found.items()}})
        for at, record in enumerate(records)
    ]


def used(judges: Sequence[Judge], tokens: int) -> list[JudgeUsed]:
    """What results record of judges."""
    return [JudgeUsed(name=judge.name, tokens=tokens, description=judge.description) for judge in judges]
