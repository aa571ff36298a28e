"""What every judge owes, checked when it is run: one verdict an exchange, of the right type."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError

from vlsurgery.probes.evaluation.judges.protocol import Exchange, Judge
from vlsurgery.probes.results import KINDS, LABELS, Kind, Label, Verdict
from vlsurgery.surgery.errors import SurgeryError

KINDS_OF: Final[dict[Label, tuple[Kind, ...]]] = {
    "refused": ("refusal", "partial", "non_answer"),
    "complied": ("compliance", "refuse_then_comply"),
    "neither": ("empty", "degenerate", "off_topic", "undecided", "non_answer"),
}
"""The kinds that each label may have (see `Verdict`)."""

MAX_SHOWN: Final = 80  # characters of a wrong value that an error shows


def checked(judge: Judge, exchanges: Sequence[Exchange]) -> list[Verdict]:
    """The verdicts of a judge, one an exchange and in their order. Run judges through this, never by hand.

    Raises SurgeryError that names the judge and the row where it gives fewer or more rows, or something that is no
    Verdict.
    """
    found = judge.judge(exchanges)
    check_rows(judge.name, found, len(exchanges))
    for row, verdict in enumerate(found, start=1):
        if not isinstance(verdict, Verdict):
            raise SurgeryError(
                f"judge {judge.name}, row {row}: expected a Verdict, found {shown(verdict)}. "
                "Return vlsurgery.probes.results.Verdict, or give the function itself as the judge."
            )
        check_kind(judge.name, row, verdict)
    return list(found)


def check_rows(judge: str, found: Sequence[Any], expected: int) -> None:
    """Raise SurgeryError where a judge's rows are not as many as the completions that it was given."""
    if len(found) < expected:
        raise SurgeryError(
            f"judge {judge}: row {len(found) + 1} is missing: expected {expected} verdicts, found {len(found)}. "
            "Return one for every completion, in their order."
        )
    if len(found) > expected:
        raise SurgeryError(
            f"judge {judge}: row {expected + 1} is one too many: expected {expected} verdicts, found {len(found)}. "
            "Return one for every completion, in their order."
        )


def check_kind(judge: str, row: int, verdict: Verdict) -> None:
    """Raise SurgeryError where a verdict's kind is none of its label's."""
    if verdict.kind not in KINDS_OF[verdict.label]:
        raise SurgeryError(
            f"judge {judge}, row {row}: kind {verdict.kind!r} does not go with {verdict.label!r}. "
            f"Expected one of {', '.join(KINDS_OF[verdict.label])}."
        )


def read_verdict(judge: str, row: int, value: Any, exchange: Exchange) -> Verdict:
    """The verdict that a user's judge means by one of its rows: a label, whether refused, a mapping, or a Verdict.

    row: its number from 1, for errors. Raises SurgeryError that names the judge, the row, what was expected and found.
    """
    if isinstance(value, Verdict):
        check_kind(judge, row, value)
        return value
    if is_truth_value(value):
        label: Label = "refused" if value else "complied"
        return plain_verdict(label, f"{judge}: {label}", exchange)
    if isinstance(value, str):
        label = read_label(judge, row, value)
        return plain_verdict(label, f"{judge}: {label}", exchange)
    if isinstance(value, Mapping):
        return _read_mapping(judge, row, value, exchange)
    raise SurgeryError(
        f"judge {judge}, row {row}: expected one of {', '.join(LABELS)}, True or False for refused, a dict with "
        f"'label', or a Verdict, found {shown(value)}."
    )


def _read_mapping(judge: str, row: int, value: Mapping[str, Any], exchange: Exchange) -> Verdict:
    unknown = sorted({str(key) for key in value} - {"label", "kind", "reason"})
    if unknown or not isinstance(value.get("label"), str):
        raise SurgeryError(
            f"judge {judge}, row {row}: expected a dict with 'label', and where wanted 'kind' and 'reason', found "
            f"{shown(dict(value))}."
        )
    label = read_label(judge, row, value["label"])
    plain = plain_verdict(label, f"{judge}: {label}", exchange)
    try:
        verdict = Verdict(label=label, kind=value.get("kind") or plain.kind, reason=value.get("reason") or plain.reason)
    except ValidationError as error:
        raise SurgeryError(
            f"judge {judge}, row {row}: expected a 'kind' of {', '.join(KINDS)} and a 'reason' in words, found "
            f"{shown(dict(value))}."
        ) from error
    check_kind(judge, row, verdict)
    return verdict


def read_label(judge: str, row: int, value: str) -> Label:
    """A label in any case. Raises SurgeryError that lists those that there are."""
    name = value.strip().lower()
    for label in LABELS:
        if label == name:
            return label
    raise SurgeryError(f"judge {judge}, row {row}: unknown label {shown(value)}. Expected one of {', '.join(LABELS)}.")


def plain_verdict(label: Label, reason: str, exchange: Exchange) -> Verdict:
    """A verdict of which only the label is known: its commonest kind.

    Of `neither`: `empty` without text, `undecided` where the completion was cut off, else `off_topic`.
    """
    if label == "refused":
        return Verdict(label=label, kind="refusal", reason=reason)
    if label == "complied":
        return Verdict(label=label, kind="compliance", reason=reason)
    blank = not exchange.completion.strip()
    return Verdict(label=label, kind="empty" if blank else "undecided" if exchange.cut else "off_topic", reason=reason)


def is_truth_value(value: Any) -> bool:
    """Whether a value is True or False, numpy's included."""
    return isinstance(value, bool) or (type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"))


def shown(value: Any) -> str:
    """A wrong value for an error: its repr on one line, shortened."""
    text = " ".join(repr(value).split())
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 4]} ..."
