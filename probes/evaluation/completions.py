"""completions.jsonl: every completion of every model, a line each, written batch by batch. Imports no torch."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from vlsurgery.probes.results import CompletionRecord, CompletionsResult
from vlsurgery.surgery.errors import SurgeryError, TargetError
from vlsurgery.surgery.results import first_fault
from vlsurgery.surgery.runtime.atomic_file import open_own, write_text
from vlsurgery.surgery.runtime.json_lines import append_lines, whole_lines
from vlsurgery.surgery.runtime.locks import lock
from vlsurgery.surgery.runtime.regular_file import read_regular

FILE: Final = "completions.jsonl"
MAX_BYTES: Final = 1 << 31  # of the file; a hundred thousand long completions take a quarter of that


class CompletionFile:
    """The file that completions are appended to as they are made, so that an interrupted run goes on where it was."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: int | None = None  # the descriptor of the file, while it is locked

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other commands from the file while the block runs: what they wrote, each would replace.

        Raises TargetError, at once, where another one has it, or where it can't be written.
        """
        self._hold()
        try:
            yield
        finally:
            self._release()

    def read(self) -> list[CompletionRecord]:
        """The records, in file order; a last line that was cut off by an interruption is left out.

        Raises SurgeryError that names the line where the file holds something else.
        """
        if not self.path.exists():
            return []
        try:
            lines = whole_lines(read_regular(self.path, MAX_BYTES))
        except OSError as error:
            raise SurgeryError(f"{self.path}: can't be read ({error.strerror}).") from error
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                if line.strip():
                    records.append(CompletionRecord.model_validate_json(line))
            except ValidationError as error:
                raise SurgeryError(
                    f"{self.path}, line {number}: not a completion ({first_fault(error)}). Remove the file and run "
                    "`vlsurgery evaluate` again."
                ) from error
        return records

    def append(self, records: Sequence[CompletionRecord]) -> None:
        """Add lines, and have them on disk on return. Raises TargetError where that can't be done."""
        try:
            append_lines(self.path, "".join(map(_line, records)))
        except OSError as error:
            raise TargetError(f"{self.path}: can't be written ({error.strerror}).") from error

    def replace(self, records: Iterable[CompletionRecord]) -> None:
        """Put these records in place of all that it holds; a reader sees the old file or the whole new one."""
        was_held = self._held is not None
        self._release()
        try:
            write_text(self.path, "".join(map(_line, records)))
        except OSError as error:
            raise TargetError(f"{self.path}: can't be written ({error.strerror}).") from error
        if was_held:
            self._hold()

    def _hold(self) -> None:
        """Lock the file that is there now, made where it is missing; where the system has no locks, nobody is kept
        out."""
        try:
            descriptor = open_own(self.path)
            found = lock(descriptor)
        except OSError as error:
            raise TargetError(f"{self.path}: can't be written ({error.strerror}).") from error
        if found != "ours":
            os.close(descriptor)
        if found == "taken":
            raise TargetError(
                f"{self.path}: another vlsurgery command is writing into it. Wait until it is done, or give another "
                "file with --completions."
            )
        self._held = descriptor if found == "ours" else None

    def _release(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


def load_completions(path: Path) -> CompletionsResult:
    """The completions of a file. Raises SurgeryError where there is none, or a line is broken."""
    if not path.is_file():
        raise SurgeryError(f"{path}: no completions here. `vlsurgery evaluate` writes them.")
    return CompletionsResult(records=CompletionFile(path).read())


def flipped(records: Sequence[CompletionRecord], first: str, second: str) -> Iterator[CompletionRecord]:
    """The pairs of completions on which the labels of two roles differ: of each prompt, first's and then second's.

    A prompt with a picture that `first` was not asked (it does not see) is compared with the same request as text.
    """
    counterparts = Counterparts(records, first)
    for record in records:
        other = counterparts.of(record) if record.role == second else None
        if other is not None and label(other) != label(record):
            yield other
            yield record


class Counterparts:
    """What one role said to the same prompt, or to the same request as text where it does not see."""

    def __init__(self, records: Iterable[CompletionRecord], role: str) -> None:
        own = [record for record in records if record.role == role]
        self._by_id = {record.id: record for record in own}
        self._in_text = {(r.set, r.request, r.prompt): r for r in own if r.modality == "text"}
        self._sees = any(record.modality != "text" for record in own)

    def of(self, record: CompletionRecord) -> CompletionRecord | None:
        found = self._by_id.get(record.id)
        if found is None and not self._sees:
            return self._in_text.get((record.set, record.request, record.prompt))
        return found


def label(record: CompletionRecord) -> str:
    """The first judge's label. Raises SurgeryError where no judge has judged it."""
    for verdict in record.verdicts.values():
        return verdict.label
    raise SurgeryError(f"the completion of {record.id} by {record.role} was not judged yet: run `vlsurgery rejudge`.")


def _line(record: CompletionRecord) -> str:
    return json.dumps(record.model_dump(mode="json"), ensure_ascii=False) + "\n"
