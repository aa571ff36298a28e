"""What the models said where it changed: completions whose verdict flipped from one role to another, side by side."""

from dataclasses import dataclass

from vlsurgery.figures import theme
from vlsurgery.figures.wording import (
    MODALITY_ORDER,
    ROLE_ORDER,
    SET_ORDER,
    cell_phrase,
    kind_name,
    rank,
    role_name,
)
from vlsurgery.probes.results import HARMFUL_SETS, CompletionRecord, CompletionsResult, Label, Verdict
from vlsurgery.surgery.runtime.visible import visible

MAX_SHOWN = 40  # completions of a group
MAX_SHOWN_IN_ALL = 320  # beyond which groups are cut shorter
MIN_SHOWN = 5
MAX_CHARACTERS = 1500  # of one text
FOLDED_FROM = 320  # characters
_PLAIN_KINDS = {("refused", "refusal"), ("complied", "compliance")}


@dataclass(frozen=True)
class Flip:
    """A change of verdict that says something. harmful: on harmful sets, else on the others."""

    harmful: bool
    role: str
    label: Label
    other: str
    other_label: Label
    name: str

    @property
    def roles(self) -> str:
        return f"{self.role}:{self.other}"


FLIPS = (
    Flip(True, "base", "refused", "adapted", "complied", "Lost: the base refuses, adapted complies"),
    Flip(True, "base", "refused", "adapted", "neither", "Broken: the base refuses, adapted does neither"),
    Flip(True, "adapted", "complied", "merged", "refused", "Brought back: adapted complies, merged refuses"),
    Flip(True, "base", "refused", "merged", "neither", "Broken: the base refuses, merged does neither"),
    Flip(False, "adapted", "complied", "merged", "refused", "The price: adapted answers, merged refuses"),
)


@dataclass(frozen=True)
class Saying:
    """One role's completion of a prompt. aside: where it was asked the same as text, and what other judges say.

    head, rest: the text, of which `rest` is folded away. left_out: characters that the page does not hold.
    """

    role: str
    colour: str
    label: str
    kind: str
    reason: str
    aside: str
    head: str
    rest: str
    left_out: int


@dataclass(frozen=True)
class Flipped:
    """One prompt and what every role said."""

    prompt: str
    sayings: tuple[Saying, ...]


@dataclass(frozen=True)
class FlippedGroup:
    """All completions that flipped in one way on one cell. of: how many had the first verdict. shown: those on the
    page; `command` pages through all. open: whether the page opens it."""

    name: str
    where: str
    count: int
    of: int
    shown: tuple[Flipped, ...]
    command: str
    open: bool

    @property
    def left_out(self) -> int:
        return self.count - len(self.shown)


class _Said:
    """Completions by role and prompt; a role that was not shown a picture answers with the same request as text."""

    def __init__(self, records: list[CompletionRecord]) -> None:
        self.roles = sorted({record.role for record in records}, key=lambda role: rank(ROLE_ORDER, role))
        self._by_id = {(record.role, record.id): record for record in records}
        self._in_text: dict[tuple[str, str, str], list[CompletionRecord]] = {}
        for record in records:
            if record.modality == "text":
                self._in_text.setdefault((record.role, record.set, record.request), []).append(record)

    def of(self, role: str, asked: CompletionRecord) -> CompletionRecord | None:
        """What a role said to a prompt."""
        if found := self._by_id.get((role, asked.id)):
            return found
        twins = self._in_text.get((role, asked.set, asked.request), [])
        return next((twin for twin in twins if twin.prompt == asked.prompt), twins[0] if twins else None)


def compute(completions: CompletionsResult) -> tuple[FlippedGroup, ...]:
    """Every group in which something flipped, by cell and then in the order of `FLIPS`; the first lost one is open."""
    said = _Said(completions.records)
    found = [
        (flip, cell, of, members)
        for cell in _cells(completions)
        for flip in FLIPS
        if flip.harmful == (cell[0] in HARMFUL_SETS)
        for of, members in [_members(flip, cell, completions.records, said)]
        if members
    ]
    room = max(MIN_SHOWN, min(MAX_SHOWN, MAX_SHOWN_IN_ALL // max(1, len(found))))
    first_lost = next((at for at, (flip, *_) in enumerate(found) if flip is FLIPS[0]), None)
    return tuple(
        FlippedGroup(
            name=flip.name,
            where=cell_phrase(*cell),
            count=len(members),
            of=of,
            shown=tuple(_side_by_side(record, said) for record in members[: MAX_SHOWN if at == first_lost else room]),
            command=f"vlsurgery completions --flipped {flip.roles} --set {cell[0]}",
            open=at == first_lost,
        )
        for at, (flip, cell, of, members) in enumerate(found)
    )


def _cells(completions: CompletionsResult) -> list[tuple[str, str]]:
    """Cells in reading order: that of the headline, harmful requests with an ordinary picture, first."""
    cells = {(record.set, record.modality) for record in completions.records}
    return sorted(
        cells, key=lambda at: (at != ("harmful", "benign"), rank(SET_ORDER, at[0]), rank(MODALITY_ORDER, at[1]))
    )


def _members(
    flip: Flip, cell: tuple[str, str], records: list[CompletionRecord], said: _Said
) -> tuple[int, list[CompletionRecord]]:
    """How many prompts of a cell had the first verdict, and the second role's completions of those that flipped."""
    of, members = 0, []
    for record in records:
        if (record.role, record.set, record.modality) != (flip.other, *cell):
            continue
        before, after = (_verdict(each) for each in (said.of(flip.role, record), record))
        if before is None or after is None or before.label != flip.label:
            continue
        of += 1
        if after.label == flip.other_label:
            members.append(record)
    return of, members


def _verdict(record: CompletionRecord | None) -> Verdict | None:
    """The verdict that rates are made of: the first judge's."""
    return next(iter(record.verdicts.values()), None) if record else None


def _side_by_side(asked: CompletionRecord, said: _Said) -> Flipped:
    answers = [(role, said.of(role, asked)) for role in said.roles]
    return Flipped(visible(asked.prompt), tuple(_saying(each, asked) for _, each in answers if each is not None))


def _saying(record: CompletionRecord, asked: CompletionRecord) -> Saying:
    verdict = _verdict(record)
    others = [f"{judge}: {each.label}" for judge, each in list(record.verdicts.items())[1:]]
    asides = [*(["asked as text"] if record.modality != asked.modality else []), *others]
    text, label, kind = record.text[:MAX_CHARACTERS], verdict.label if verdict else "", verdict.kind if verdict else ""
    cut = FOLDED_FROM if len(text) > FOLDED_FROM else len(text)
    return Saying(
        role=role_name(record.role),
        colour=theme.role_colour(record.role),
        label=label,
        kind="" if (label, kind) in _PLAIN_KINDS else kind_name(kind),
        reason=visible(verdict.reason) if verdict else "",
        aside="; ".join(asides),
        head=visible(text[:cut]) or "(empty)",
        rest=visible(text[cut:]),
        left_out=len(record.text) - len(text),
    )
