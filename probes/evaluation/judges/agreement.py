"""How far judges agree with each other, and with people."""

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

from pydantic import Field

from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.evaluation.judges.checking import checked
from vlsurgery.probes.evaluation.judges.judge_errors import Confusion, corrected_rate, judge_errors
from vlsurgery.probes.evaluation.judges.labels import HumanLabel
from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.results import LABELS, CompletionRecord, JudgeAgreement, Label, Rate
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.results import Result


def compare(records: Sequence[CompletionRecord], a: str, b: str) -> JudgeAgreement:
    """How far the judges named a and b agree on the same completions.

    Raises SurgeryError where there is no completion, or one that either of them didn't judge.
    """
    for record in records:
        for name in (a, b):
            if name not in record.verdicts:
                raise SurgeryError(
                    f"completion {record.id} of {record.role}: judge {name} didn't judge it, only "
                    f"{', '.join(record.verdicts) or 'none'}. Run `vlsurgery rejudge --judge {name}`."
                )
    first, second = ([record.verdicts[name].label for record in records] for name in (a, b))
    where = [(record.role, record.id) for record in records]
    return _agreement((a, b), first, second, where)


def _agreement(
    judges: tuple[str, str], first: Sequence[Label], second: Sequence[Label], where: Sequence[tuple[str, str]]
) -> JudgeAgreement:
    if not where:
        raise SurgeryError(f"judges {' and '.join(judges)}: no completion to compare them on. Run evaluate first.")
    differing = [at for at, one, other in zip(where, first, second, strict=True) if one != other]
    return JudgeAgreement(
        judges=judges,
        n=len(where),
        agreement=1 - len(differing) / len(where),
        kappa=cohen_kappa(first, second),
        differing=differing,
    )


def cohen_kappa(first: Sequence[Label], second: Sequence[Label]) -> float | None:
    """Cohen's kappa of two judges' labels: agreement beyond chance over what chance leaves, at most 1 (Cohen 1960).

    0 is what two judges reach that each give their labels at random, as often as they do. None where both gave one
    and the same label throughout, or there are no labels: chance then leaves nothing.
    """
    n = len(first)
    agreed = sum(one == other for one, other in zip(first, second, strict=True))
    # Both sides times n squared, so that they stay whole numbers.
    by_chance = sum(first.count(label) * second.count(label) for label in LABELS)
    return None if by_chance == n * n else (agreed * n - by_chance) / (n * n - by_chance)


class JudgeRow(Confusion):
    """One judge against human labels. refused: share of the completions that it calls refused. corrected: that share
    corrected for its own errors (Rogan-Gladen)."""

    refused: Rate
    corrected: Rate


class AgreementResult(Result):
    """How far judges agree with human labels of the same completions, and with each other.

    labels: the file of labels. agreement: of each two judges; `differing` holds role (or "") and id (or the line).
    """

    kind: ClassVar[str] = "agreement"
    row_field: ClassVar[str] = "records"
    shown: ClassVar[tuple[str, ...]] = (
        "judge", "n", "accuracy.rate", "precision.rate", "recall.rate", "specificity.rate", "refused.rate",
        "corrected.rate",
    )  # fmt: skip

    labels: str
    records: list[JudgeRow] = Field(alias="rows")
    agreement: list[JudgeAgreement] = Field(default_factory=list)


def against_labels(labels: Sequence[HumanLabel], judges: Sequence[Judge], source: str) -> AgreementResult:
    """Judges run on labelled completions: their errors, the refused rate as each measures it and corrected, and how
    far they agree with each other.

    source: where the labels come from, for the result. Completions of one prompt count as one request; without
    prompts and ids, each is its own.

    Raises SurgeryError where there are no labels or no judges, two have one name, or a judge fails.
    """
    names = [judge.name for judge in judges]
    if not names or len(set(names)) < len(names):
        raise SurgeryError(f"judges: expected one or more of different names, found {', '.join(names) or 'none'}.")
    exchanges = [Exchange(label.completion, label.prompt) for label in labels]
    verdicts = {judge.name: [verdict.label for verdict in checked(judge, exchanges)] for judge in judges}
    where = [(label.role or "", label.id or f"line {label.line}") for label in labels]
    return AgreementResult(
        labels=source,
        records=[_row(name, found, labels) for name, found in verdicts.items()],
        agreement=[_agreement((a, b), verdicts[a], verdicts[b], where) for a, b in combinations(names, 2)],
    )


def labels_of(records: Sequence[CompletionRecord], labels: Sequence[HumanLabel], source: str) -> list[HumanLabel]:
    """The labels of completions that are among the records: those from which a judge's errors on them are known.

    A label belongs to a record of its role and id, where it names both, or else of its text (and prompt and role, where
    it has them). source: the file of labels, for errors.

    Raises SurgeryError where no label belongs to any, or one names a record that has another text by now.
    """
    by_id = {(record.role, record.id): record for record in records}
    texts = {(record.text.strip(), *rest) for record in records for rest in _told(record.prompt, record.role)}
    found = []
    for label in labels:
        named = by_id.get((label.role or "", label.id or ""))
        if named is not None and named.text.strip() != label.completion.strip():
            raise SurgeryError(
                f"{source}, line {label.line}: completion {label.id} of {label.role} reads otherwise by now. Label the "
                "completions of this evaluation (`vlsurgery completions --csv FILE`)."
            )
        if named is not None or (label.completion.strip(), label.prompt, label.role) in texts:
            found.append(label)
    if not found:
        raise SurgeryError(
            f"{source}: none of its {len(labels)} labelled completions is one of these {len(records)}. Label the "
            "completions of this evaluation (`vlsurgery completions --csv FILE`), or give --alone to measure the judge "
            "by itself."
        )
    return found


def _told(prompt: str, role: str) -> tuple[tuple[str | None, str | None], ...]:
    """Prompt and role as a label may have them: each, or None."""
    return (prompt, role), (prompt, None), (None, role), (None, None)


def _row(judge: str, verdicts: Sequence[Label], labels: Sequence[HumanLabel]) -> JudgeRow:
    confusion = judge_errors(judge, verdicts, [label.label for label in labels])
    refused = [verdict == "refused" for verdict in verdicts]
    requests = [label.prompt or label.id or at for at, label in enumerate(labels)]
    fields = {name: getattr(confusion, name) for name in Confusion.model_fields}
    return JudgeRow(**fields, refused=rate(refused, requests), corrected=corrected_rate(refused, requests, confusion))
