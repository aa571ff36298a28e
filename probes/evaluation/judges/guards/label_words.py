"""What a classifier's labels mean: as the user says, or by their words."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from vlsurgery.probes.results import LABELS, Label
from vlsurgery.surgery.errors import SurgeryError

_REFUSED: Final = re.compile(r"refus(?:e|es|ed|al|als|ing)|reject(?:s|ed|ion|ions|ing)?|declin(?:e|es|ed|ing)")
_COMPLIED: Final = re.compile(r"compl(?:y|ies|ied|ying|iant|iance)|normal")
_NOT: Final = ("no", "non", "not", "without")
_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def verdict_labels(judge: str, known: Sequence[str], given: Mapping[str, str] | str | None) -> dict[str, Label]:
    """The verdict that each of a model's labels means.

    known: the model's labels. given: what the user says they mean (`--judge-labels`), all of them; None reads their
    words.

    Raises SurgeryError that lists the model's labels and shows an example: labels that say nothing, labels that the
    model doesn't have, labels left out, or all with one meaning.
    """
    if given is not None:
        meant = _given(judge, known, given)
    else:
        by_words = {label: by_its_words(label) for label in known}
        unclear = [label for label, verdict in by_words.items() if verdict is None]
        if unclear:
            raise SurgeryError(
                f"judge {judge}: its labels don't say what they mean: {', '.join(unclear)}. {_example(known)}"
            )
        meant = {label: verdict for label, verdict in by_words.items() if verdict is not None}
    if len(set(meant.values())) < 2:
        raise SurgeryError(
            f"judge {judge}: each of its labels ({', '.join(known)}) means {next(iter(meant.values()), 'nothing')}, so "
            f"it could tell nothing apart. {_example(known)}"
        )
    return meant


def by_its_words(label: str) -> Label | None:
    """What a label's own words say ("REJECTION", "Non-refusal", "full_compliance"); None where they say nothing."""
    words = [word.lower() for word in _WORD.findall(label)]
    if words == ["neither"]:
        return "neither"
    refused = any(_REFUSED.fullmatch(word) for word in words)
    complied = any(_COMPLIED.fullmatch(word) for word in words)
    if refused == complied:
        return None
    negated = any(word in _NOT for word in words)
    return "refused" if refused != negated else "complied"


def _given(judge: str, known: Sequence[str], given: Mapping[str, str] | str) -> dict[str, Label]:
    pairs = _pairs(judge, known, given) if isinstance(given, str) else dict(given)
    meant: dict[str, Label] = {}
    for label, word in pairs.items():
        if label not in known:
            raise SurgeryError(f"judge {judge}: the model has no label {label!r}. {_example(known)}")
        verdict = next((each for each in LABELS if each == word), None)
        if verdict is None:
            raise SurgeryError(
                f"judge {judge}: label {label!r} can't mean {word!r}; expected one of {', '.join(LABELS)}. "
                f"{_example(known)}"
            )
        meant[label] = verdict
    missing = [label for label in known if label not in meant]
    if missing:
        raise SurgeryError(f"judge {judge}: labels without a meaning: {', '.join(missing)}. {_example(known)}")
    return meant


def _pairs(judge: str, known: Sequence[str], text: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for part in text.split(","):
        label, equals, word = (piece.strip() for piece in part.rpartition("="))
        if not equals or not label or label in pairs:
            fault = f"{label!r} twice" if label in pairs else f"{part.strip()!r}"
            raise SurgeryError(f"judge {judge}: expected labels as LABEL=VERDICT, found {fault}. {_example(known)}")
        pairs[label] = word
    return pairs


def _example(known: Sequence[str]) -> str:
    verdicts = ("complied", "refused", *["neither"] * len(known))
    pairs = ",".join(f"{label}={verdict}" for label, verdict in zip(known, verdicts, strict=False))
    return f"The model's labels are {', '.join(known)}; say what each means, as in --judge-labels {pairs}"
