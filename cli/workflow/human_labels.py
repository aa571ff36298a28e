"""People's labels of a case's completions, and the rates corrected by them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vlsurgery.cli.workflow.case import Case
from vlsurgery.probes.evaluation.completions import FILE, load_completions
from vlsurgery.probes.evaluation.judges import HumanLabel, corrected_rate, judge_errors, labels_of, read_labels
from vlsurgery.probes.prompts.reading import read_text
from vlsurgery.probes.results import BehaviourResult, BehaviourRow, CompletionRecord
from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.runtime.atomic_file import write_text

LABELS: Final = "labels.csv"


def keep_labels(case: Case, labels: Sequence[HumanLabel], path: Path) -> None:
    """Keep a file of labels in the case.

    Raises SurgeryError where none of them is of a completion of the case or one is of a text that has changed, and
    TargetError where the file can't be written.
    """
    completions = load_completions(case.path(FILE)).records
    labels_of(completions, labels, str(path))
    try:
        write_text(case.path(LABELS), read_text(path))
    except OSError as error:
        raise TargetError(f"{case.path(LABELS)}: can't be written ({error.strerror}).") from error


def with_human_labels(case: Case, result: BehaviourResult) -> BehaviourResult:
    """The result with corrected refusal rates, where the case keeps labels and they are of these completions."""
    path = case.path(LABELS)
    if not path.is_file() or result.completions is None:
        return result
    records, judge = result.completions.records, result.judge.name
    matched = _matched(read_labels(path), records)
    if not matched:
        note = f"{path.name} holds labels of other completions, so no rate is corrected by them"
        return result.model_copy(update={"notes": [*result.notes, note]})
    verdicts, labels = zip(*((record.verdicts[judge].label, label.label) for record, label in matched), strict=True)
    confusion = judge_errors(judge, verdicts, labels)

    def corrected(row: BehaviourRow) -> BehaviourRow:
        members = [r for r in records if (r.role, r.set, r.modality) == (row.role, row.set, row.modality)]
        outcomes = [record.verdicts[judge].refused for record in members]
        rate = corrected_rate(outcomes, [record.request for record in members], confusion)
        return row.model_copy(update={"corrected": rate})

    return result.model_copy(update={"records": [corrected(row) for row in result.records]})


def _matched(
    labels: Sequence[HumanLabel], completions: Sequence[CompletionRecord]
) -> list[tuple[CompletionRecord, HumanLabel]]:
    """Each label with its completion: the same text, of the same role and prompt where the label names them."""
    by_text: dict[str, list[CompletionRecord]] = {}
    for record in completions:
        by_text.setdefault(record.text.strip(), []).append(record)
    found = []
    for label in labels:
        candidates = by_text.get(label.completion.strip(), [])
        fitting = [
            record
            for record in candidates
            if label.role in (None, record.role)
            and label.id in (None, record.id)
            and label.prompt in (None, record.prompt)
        ]
        if fitting:
            found.append((fitting[0], label))
    return found
