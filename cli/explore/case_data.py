"""What the page shows of a case, read once: directions, separation, and every completion, searched."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.completion_filter import CompletionFilter
from vlsurgery.figures.choice import one_of
from vlsurgery.figures.wording import MODALITY_ORDER, ROLE_ORDER, SET_ORDER, kind_name, modality_name, rank, role_name
from vlsurgery.probes.evaluation.completions import FILE, Counterparts, load_completions
from vlsurgery.probes.results import CompletionRecord, ProbeResult
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.visible import visible

PAGE: Final = 20  # prompts that are shown at once
MAX_TEXT: Final = 20_000  # characters of a completion that are shown
DIRECTIONS: Final = "directions.safetensors"


@dataclass(frozen=True)
class Side:
    """A direction of the case, but for its position: "base/text"."""

    role: str
    modality: str

    @property
    def key(self) -> str:
        return f"{self.role}/{self.modality}"

    @property
    def name(self) -> str:
        return f"{role_name(self.role)}, {modality_name(self.modality)}"


class CaseData:
    """The findings of a case that the page shows; its checkpoints need not be there."""

    def __init__(self, case: Case) -> None:
        """Raises SurgeryError where a file of the case is broken."""
        self.case = case
        self.probe = case.result(ProbeResult)
        said = case.path(FILE)
        self.records: Sequence[CompletionRecord] = load_completions(said).records if said.is_file() else ()
        self._vectors = _directions(case.path(DIRECTIONS)) if self.probe is not None else {}

    @cached_property
    def sides(self) -> dict[Side, list[str]]:
        """Every direction, in the order of roles and modalities, with the positions it has, the first token first."""
        found: dict[Side, list[str]] = {}
        for key in self._vectors:
            role, modality, position = key.rsplit("/", 2)
            found.setdefault(Side(role, modality), []).append(position)
        ordered = sorted(found, key=lambda s: (rank(ROLE_ORDER, s.role), rank(MODALITY_ORDER, s.modality)))
        return {side: sorted(found[side], key=_place) for side in ordered}

    def side(self, option: str, key: str) -> Side:
        """A direction by its key. Raises SurgeryError that names what there is."""
        keys = {side.key: side for side in self.sides}
        return keys[one_of(option, key, keys)]

    def vectors(self, side: Side, position: str) -> np.ndarray:
        """[layers, hidden] float32."""
        one_of("position", position, self.sides[side])
        found: np.ndarray = self._vectors[f"{side.key}/{position}"]
        return found

    @cached_property
    def cells(self) -> list[str]:
        """The prompt sets and "SET.MODALITY" of which there are completions."""
        cells = {(record.set, record.modality) for record in self.records}
        ordered = sorted(cells, key=lambda each: (rank(SET_ORDER, each[0]), rank(MODALITY_ORDER, each[1])))
        return list(dict.fromkeys(name for set_, modality in ordered for name in (set_, f"{set_}.{modality}")))

    @cached_property
    def roles(self) -> list[str]:
        """Whose completions there are."""
        return sorted({record.role for record in self.records}, key=lambda role: rank(ROLE_ORDER, role))

    @cached_property
    def _said(self) -> dict[str, Counterparts]:
        return {role: Counterparts(self.records, role) for role in self.roles}

    def search(self, wanted: CompletionFilter, page: int) -> dict[str, Any]:
        """The prompts of which a completion meets the conditions, each with what every role said; one page of them.

        Raises SurgeryError where there are no completions, or a condition names what none has.
        """
        if not self.records:
            raise SurgeryError("this case holds no completions yet. This makes them: vlsurgery evaluate")
        asked = {record.id: record for record in wanted.select(self.records)}
        first = page * PAGE
        shown = list(asked.values())[first : first + PAGE]
        return {"count": len(asked), "first": first, "prompts": [self._prompt(record) for record in shown]}

    def _prompt(self, asked: CompletionRecord) -> dict[str, Any]:
        answers = [(role, self._said[role].of(asked)) for role in self.roles]
        return {
            "id": visible(asked.id),
            "set": asked.set,
            "modality": asked.modality,
            "where": f"{asked.set}, {modality_name(asked.modality)}",
            "prompt": visible(asked.prompt[:MAX_TEXT]),
            "answers": [_saying(record, asked) for _, record in answers if record is not None],
        }


def _directions(path: Path) -> dict[str, np.ndarray]:
    """ "<role>/<modality>/<position>" -> [layers, hidden]. Raises SurgeryError where the file is absent or broken."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found: dict[str, np.ndarray] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SurgeryError(f"{path}: can't be read ({error}). Make it again: vlsurgery probe") from error
    if strange := [key for key, value in found.items() if value.ndim != 2 or key.count("/") < 2]:
        raise SurgeryError(f"{path}: {strange[0]} is no direction. Make the file again: vlsurgery probe")
    return found


def _place(position: str) -> tuple[bool, int]:
    """Sorting key: `instruction`, then the tokens behind it from the first to the last."""
    return (True, int(position)) if position.removeprefix("-").isdecimal() else (False, 0)


def _saying(record: CompletionRecord, asked: CompletionRecord) -> dict[str, Any]:
    verdict = next(iter(record.verdicts.values()), None)
    return {
        "role": role_name(record.role),
        "text": visible(record.text[:MAX_TEXT]),
        "left_out": max(0, len(record.text) - MAX_TEXT),
        "label": verdict.label if verdict else "not judged",
        "kind": kind_name(verdict.kind) if verdict else "",
        "reason": visible(verdict.reason) if verdict else "",
        "as_text": record.modality != asked.modality,
        "cut": record.cut,
    }
