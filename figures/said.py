"""What the models said, side by side, and how often a verdict flipped from one role to another."""

from collections.abc import Sequence
from dataclasses import dataclass

from vlsurgery.figures.wording import (
    MODALITY_ORDER,
    ROLE_ORDER,
    SET_ORDER,
    cell_phrase,
    kind_name,
    rank,
)
from vlsurgery.probes.results import HARMFUL_SETS, CompletionRecord, CompletionsResult, Label, Verdict
from vlsurgery.surgery.runtime.visible import visible

MAX_CHARACTERS = 1500  # of one text
_PLAIN_KINDS = {("refused", "refusal"), ("complied", "compliance")}


@dataclass(frozen=True)
class Flip:
    """A change of verdict that says something. harmful: on harmful sets, else on the others. name: a word, then who
    does what."""

    harmful: bool
    role: str
    label: Label
    other: str
    other_label: Label
    name: str


FLIPS = (
    Flip(True, "base", "refused", "adapted", "complied", "Lost: the base refuses, adapted complies"),
    Flip(True, "base", "refused", "adapted", "neither", "Broken: the base refuses, adapted does neither"),
    Flip(True, "adapted", "complied", "merged", "refused", "Brought back: adapted complies, merged refuses"),
    Flip(True, "base", "refused", "merged", "neither", "Broken: the base refuses, merged does neither"),
    Flip(False, "adapted", "complied", "merged", "refused", "The price: adapted answers, merged refuses"),
)


@dataclass(frozen=True)
class Sayings:
    """One role's completion of a prompt. aside: where it was asked the same as text, and what other judges say.
    left_out: characters that the page does not hold."""

    role: str
    label: str
    kind: str
    reason: str
    aside: str
    text: str
    left_out: int


@dataclass(frozen=True)
class FlipCount:
    """How many completions of a cell flipped in one way. flip: its place in `FLIPS`. of: how many had the first
    verdict."""

    flip: int
    count: int
    of: int


@dataclass(frozen=True)
class FlipRow:
    """One cell with its counts, one for each of `FLIPS`; None where that flip is not of such prompts."""

    set: str
    modality: str
    where: str
    counts: tuple[FlipCount | None, ...]


class _Said:
    """Completions by role and prompt; a role that was not shown a picture answers with the same request as text."""

    def __init__(self, records: list[CompletionRecord]) -> None:
        self.roles = sorted({record.role for record in records}, key=lambda role: rank(ROLE_ORDER, role))
        self._by_id = {(record.role, record.id): record for record in records}
        self._in_text: dict[tuple[str, str, str], list[CompletionRecord]] = {}
        for record in records:
            if record.modality == "text":
                self._in_text.setdefault((record.role, record.set, record.request), []).append(record)

    def own(self, role: str, asked: CompletionRecord) -> CompletionRecord | None:
        """What a role said to this very prompt."""
        return self._by_id.get((role, asked.id))

    def of(self, role: str, asked: CompletionRecord) -> CompletionRecord | None:
        """What a role said to a prompt, or to the same request as text."""
        if found := self.own(role, asked):
            return found
        twins = self._in_text.get((role, asked.set, asked.request), [])
        return next((twin for twin in twins if twin.prompt == asked.prompt), twins[0] if twins else None)


def compute(completions: CompletionsResult) -> tuple[FlipRow, ...]:
    """Every cell in which something flipped, that of the headline first."""
    said = _Said(completions.records)
    found = []
    for cell in _cells(completions):
        counts = tuple(_counted(at, cell, completions.records, said) for at in range(len(FLIPS)))
        if any(each and each.count for each in counts):
            found.append(FlipRow(*cell, cell_phrase(*cell), counts))
    return tuple(found)


Spoken = dict[tuple[str, str, str], tuple[str, tuple[Sayings, ...], tuple[int, ...]]]


def side_by_side(completions: CompletionsResult) -> tuple[tuple[str, ...], Spoken]:
    """The roles, and for each (set, modality, id) of a prompt its text, what every role said, and its places in
    `FLIPS`."""
    said = _Said(completions.records)
    asked: dict[tuple[str, str, str], CompletionRecord] = {}
    for record in completions.records:
        asked.setdefault((record.set, record.modality, record.id), record)
    return tuple(said.roles), {key: _spoken(record, said) for key, record in asked.items()}


def _spoken(asked: CompletionRecord, said: "_Said") -> tuple[str, tuple[Sayings, ...], tuple[int, ...]]:
    answers = [found for role in said.roles if (found := said.of(role, asked)) is not None]
    flips = [at for at, flip in enumerate(FLIPS) if _flipped(flip, asked, said) == (True, True)]
    return visible(asked.prompt), tuple(_saying(each, asked) for each in answers), tuple(flips)


def _flipped(flip: Flip, asked: CompletionRecord, said: "_Said") -> tuple[bool, bool]:
    """Whether the first role has the first verdict here, and the second one, asked the same itself, the second."""
    after = said.own(flip.other, asked)
    if flip.harmful != (asked.set in HARMFUL_SETS) or after is None:
        return False, False
    before = _verdict(said.of(flip.role, after))
    now = _verdict(after)
    if before is None or now is None or before.label != flip.label:
        return False, False
    return True, now.label == flip.other_label


def _cells(completions: CompletionsResult) -> list[tuple[str, str]]:
    """Cells in reading order: that of the headline, harmful requests with an ordinary picture, first."""
    cells = {(record.set, record.modality) for record in completions.records}
    return sorted(
        cells, key=lambda at: (at != ("harmful", "benign"), rank(SET_ORDER, at[0]), rank(MODALITY_ORDER, at[1]))
    )


def _counted(at: int, cell: tuple[str, str], records: Sequence[CompletionRecord], said: _Said) -> FlipCount | None:
    """How many prompts of a cell had the first verdict of a flip, and how many of those flipped."""
    flip = FLIPS[at]
    if flip.harmful != (cell[0] in HARMFUL_SETS):
        return None
    asked = [r for r in records if (r.role, r.set, r.modality) == (flip.other, *cell)]
    found = [_flipped(flip, record, said) for record in asked]
    return FlipCount(at, sum(after for _, after in found), sum(before for before, _ in found))


def _verdict(record: CompletionRecord | None) -> Verdict | None:
    """The verdict that rates are made of: the first judge's."""
    return next(iter(record.verdicts.values()), None) if record else None


def _saying(record: CompletionRecord, asked: CompletionRecord) -> Sayings:
    verdict = _verdict(record)
    others = [f"{judge}: {each.label}" for judge, each in list(record.verdicts.items())[1:]]
    asides = [*(["asked as text"] if record.modality != asked.modality else []), *others]
    label, kind = (verdict.label, verdict.kind) if verdict else ("", "")
    return Sayings(
        role=record.role,
        label=label,
        kind="" if (label, kind) in _PLAIN_KINDS else kind_name(kind),
        reason=visible(verdict.reason) if verdict else "",
        aside="; ".join(asides),
        text=visible(record.text[:MAX_CHARACTERS]) or "(empty)",
        left_out=max(0, len(record.text) - MAX_CHARACTERS),
    )
