"""What a run's models gave, kept in a file as it comes, so that an interrupted measurement goes on from there."""

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import Field, ValidationError

from vlsurgery.surgery.errors import SurgeryError, TargetError
from vlsurgery.surgery.results import Frozen, first_fault
from vlsurgery.surgery.runtime.json_lines import append_lines, whole_lines
from vlsurgery.surgery.runtime.regular_file import read_regular

SCHEMA: Final = "vlsurgery/trajectory-kept/1"
MAX_BYTES: Final = 1 << 30  # of the file; a checkpoint takes well below a megabyte
_REMOVE: Final = "Remove the file and run `vlsurgery trajectory` again."
Value = TypeVar("Value", bound=Frozen)


class KeptCompletion(Frozen):
    """A completion. text, ids, finished: as `generate.Completion` has them."""

    text: str
    ids: tuple[int, ...]
    finished: bool


class KeptCompletions(Frozen):
    """The completions of one batch of prompts, in their order."""

    said: list[KeptCompletion]


class ModelOdds(Frozen):
    """What one model gave without writing anything.

    log_odds: prompt id -> refusal log-odds, of the prompts that it can be asked. unseen: of the base, those of pictured
    prompts asked without their pictures, where it does not see. openings: in words, those that count as refusals.
    notes: what to know of results that are measured on the model.
    """

    reads_pictures: bool
    log_odds: dict[str, float]
    unseen: dict[str, float]
    openings: list[str]
    notes: list[str]


class BlockChanges(Frozen):
    """Block -> how far it is from the base's, relative to that; None where the base's has no size."""

    relative: dict[str, float | None]


class _KeptLine(Frozen):
    """A line of the file. key: of what the value was made from. digest: of the value, by which damage is seen."""

    schema_name: str = Field(alias="schema")
    key: str
    digest: str
    value: dict[str, Any]


class KeptRun:
    """The file, a line a value, read as this is made; a last line that was cut off is left out. path: None keeps
    nothing. Raises SurgeryError that names the line where the file holds something else."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._values: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self._values = {line.key: line.value for line in self._read(path)}

    def __len__(self) -> int:
        return len(self._values)

    def value(self, kind: type[Value], of: Sequence[object], make: Callable[[], Value]) -> Value:
        """What is kept of this kind, made from `of`; else what `make` gives, which is then kept.

        Raises TargetError where the file can't be written.
        """
        key = _digest([kind.__name__, *of])
        if key in self._values:
            return kind.model_validate(self._values[key])
        made = make()
        value = made.model_dump(mode="json")
        line = {"schema": SCHEMA, "key": key, "digest": _digest(value), "value": value}
        if self.path is not None:
            try:
                append_lines(self.path, json.dumps(line, ensure_ascii=False) + "\n")
            except OSError as error:
                raise TargetError(f"{self.path}: can't be written ({error.strerror}).") from error
        self._values[key] = value  # a checkpoint may hold the base's very weights
        return made

    def _read(self, path: Path) -> list[_KeptLine]:
        """The lines. Raises SurgeryError that names the first one that is something else."""
        try:
            lines = whole_lines(read_regular(path, MAX_BYTES))
        except OSError as error:
            raise SurgeryError(f"{path}: can't be read ({error.strerror}).") from error
        found = []
        for number, line in enumerate(lines, 1):
            try:
                read = _KeptLine.model_validate_json(line)
            except ValidationError as error:
                raise SurgeryError(f"{path}, line {number}: {first_fault(error)}. {_REMOVE}") from error
            if read.schema_name != SCHEMA or read.digest != _digest(read.value):
                raise SurgeryError(f"{path}, line {number}: not what was written there as {SCHEMA}. {_REMOVE}")
            found.append(read)
        return found


def _digest(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
