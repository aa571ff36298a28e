"""Which completions the user wants to read."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from vlsurgery.probes.evaluation.completions import flipped, label
from vlsurgery.probes.results import KINDS, LABELS, CompletionRecord
from vlsurgery.surgery.errors import SurgeryError


@dataclass(frozen=True)
class CompletionFilter:
    """Conditions that all must hold; None for no condition.

    role: of the model. set: "SET" or "SET.MODALITY". verdict: a label or a kind, of the first judge. flipped: "A:B",
    prompts on which the labels of two roles differ, both completions of each. grep: text in prompt or completion,
    whatever its case. differing: only those on which judges differ.
    """

    role: str | None = None
    set: str | None = None
    verdict: str | None = None
    flipped: str | None = None
    grep: str | None = None
    differing: bool = False

    def select(self, records: Sequence[CompletionRecord]) -> list[CompletionRecord]:
        """The records, in their order; flipped ones in pairs, a pair where either meets the other conditions.

        Raises SurgeryError where a condition names what no completion has.
        """
        self._check(records)
        if self.flipped is None:
            return [record for record in records if self._meets(record)]
        pairs = list(flipped(records, *self._roles(records)))
        found = [pair for pair in zip(pairs[::2], pairs[1::2], strict=True) if any(map(self._meets, pair))]
        return [record for pair in found for record in pair]

    def _check(self, records: Sequence[CompletionRecord]) -> None:
        roles = {record.role for record in records}
        if self.role is not None:
            _known("--role", self.role, roles)
        if self.set is not None:
            cells = {record.set for record in records} | {f"{record.set}.{record.modality}" for record in records}
            _known("--set", self.set, cells)
        if self.verdict is not None:
            _known("--verdict", self.verdict, (*LABELS, *KINDS))

    def _roles(self, records: Sequence[CompletionRecord]) -> tuple[str, str]:
        """The two roles of `flipped`, of which each may have a colon of its own, as merged:uniform has."""
        text, roles = self.flipped or "", {record.role for record in records}
        for at, letter in enumerate(text):
            first, second = text[:at], text[at + 1 :]
            if letter == ":" and first in roles and second in roles:
                return first, second
        raise SurgeryError(f"--flipped {text}: expected two of {', '.join(sorted(roles))}, as in base:adapted.")

    def _meets(self, record: CompletionRecord) -> bool:
        conditions: list[Callable[[], bool]] = [
            lambda: self.role is None or record.role == self.role,
            lambda: self.set is None or self.set in (record.set, f"{record.set}.{record.modality}"),
            lambda: self.verdict is None or self.verdict in (label(record), _kind(record)),
            lambda: self.grep is None or self.grep.lower() in f"{record.prompt}\n{record.text}".lower(),
            lambda: not self.differing or len({verdict.label for verdict in record.verdicts.values()}) > 1,
        ]
        return all(condition() for condition in conditions)


def _kind(record: CompletionRecord) -> str:
    return next(iter(record.verdicts.values())).kind


def _known(option: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise SurgeryError(f"{option} {value}: expected one of {', '.join(sorted(known))}.")
