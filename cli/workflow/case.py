"""The case: a folder that holds one set of checkpoints by reference, and every finding about them."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final, Self, TypeVar

from pydantic import Field

from vlsurgery.cli.workflow.checkpoints import CaseCheckpoints
from vlsurgery.cli.workflow.fingerprint import fingerprint, is_unchanged
from vlsurgery.cli.workflow.surroundings import Surroundings, surroundings
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.contents import check_contents, contents_digest, take_contents
from vlsurgery.surgery.errors import SurgeryError, TargetError
from vlsurgery.surgery.results import CheckpointRef, Frozen, Result
from vlsurgery.surgery.runtime.excerpts import excerpt
from vlsurgery.surgery.runtime.json_lines import append_lines, whole_lines
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.tables import Row, flat

FILE: Final = "case.json"
HISTORY: Final = "history.jsonl"
# The settings of steps that name files or other steps, and their types.
SETTING_TYPES: Final = {"uses": list, "out": str, "page": str, "level": str}

Finding = TypeVar("Finding", bound=Result)


class StepRecord(Frozen):
    """A step that was done: when, with which settings, on which checkpoints.

    order: the steps of a case are numbered in the order in which they were done. identities: role -> identity.
    contents: role -> one SHA-256 of all its weights (`contents_digest`), where they were taken.
    left: the fingerprint of the files that the step wrote. surroundings: versions and machine; None where an earlier
    version did the step.
    """

    order: int
    finished: str
    settings: dict[str, Any]
    identities: dict[str, str]
    contents: dict[str, str] = Field(default_factory=dict)
    left: str | None = None
    surroundings: Surroundings | None = None


class CaseFile(Result):
    """case.json.

    checkpoints: role -> absolute path, and the identity and contents that its files had when the case was opened or a
        step was done. beside: role -> the paths of its folders from the case's folder.
    """

    kind: ClassVar[str] = "case"
    row_field: ClassVar[str] = "steps"

    beside: dict[str, list[str]] = Field(default_factory=dict)
    steps: dict[str, StepRecord] = Field(default_factory=dict)

    def rows(self) -> list[Row]:
        """One row a step that was done."""
        return [{"step": name, **flat(step, StepRecord)} for name, step in self.steps.items()]

    @classmethod
    def columns(cls) -> list[str]:
        return ["step", *flat(None, StepRecord)]


class Case:
    """A folder with one set of checkpoints.

    folder: its path. checkpoints: role -> checkpoint as its files are now, opened when it is first asked for. A case
    is opened, and its results are read, without them.
    """

    def __init__(
        self,
        folder: Path,
        content: CaseFile,
        opened: Mapping[str, Checkpoint] | None = None,
        allow_pickle: bool = False,
    ) -> None:
        self.folder = folder
        self.checkpoints = CaseCheckpoints(folder, content.checkpoints, content.beside, opened or {}, allow_pickle)
        self._content = content

    @classmethod
    def open(cls, folder: str | Path, allow_pickle: bool = False) -> Self:
        """The case in a folder. Raises SurgeryError that names the next command where there is none.

        allow_pickle: take pickled weights; that they were allowed before is no leave, as anybody can write a case.json.
        """
        folder = Path(folder)
        if not (folder / FILE).is_file():
            raise SurgeryError(f"{folder}: no case here. Open one with `vlsurgery diff BASE ADAPTED`.")
        content = CaseFile.load(folder / FILE)
        if not content.checkpoints:
            raise SurgeryError(f"{folder / FILE}: names no checkpoints. Remove it and open the case again.")
        missing = [role for role in ("base", "adapted") if role not in content.checkpoints]
        if missing:
            raise SurgeryError(
                f"{folder / FILE}: has no {' and no '.join(missing)}, only {', '.join(content.checkpoints)}. "
                f"Open the case again: vlsurgery diff BASE ADAPTED --new --case {folder}."
            )
        _check_settings(folder / FILE, content.steps)
        return cls(folder, content, allow_pickle=allow_pickle)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        checkpoints: Mapping[str, Checkpoint],
        new: bool = False,
        write: bool = True,
        claim: Callable[[Path], None] = lambda folder: None,  # noqa: ARG005
    ) -> Self:
        """Open a case of `checkpoints`, or go on with the one that the folder already holds.

        checkpoints: role -> checkpoint, all of them open. Those of the case may have been moved or copied: the case
            then goes on with them where they are now.
        new: when the folder holds other checkpoints, move it aside (to FOLDER-1, FOLDER-2, ...) instead of refusing.
        write: False for the case as it would be opened: nothing is moved or written.
        claim: keeps other processes out of the folder, once it is there.

        Raises TargetError where the folder holds something else, or can't be written.
        """
        folder = Path(folder)
        content = CaseFile()
        if write:
            _make(folder)
            claim(folder)
        if (folder / FILE).is_file():
            held = CaseFile.load(folder / FILE)
            if _are_same(CaseCheckpoints(folder, held.checkpoints, held.beside, {}), held, checkpoints):
                content = held
            elif not new:
                others = ", ".join(
                    f"{role}: {ref.path}" + (f", text stack {ref.text_stack}" if ref.text_stack else "")
                    for role, ref in held.checkpoints.items()
                )
                raise TargetError(
                    f"{folder}: holds a case of other checkpoints ({others}). Give --new to move "
                    "it aside, or another folder with --case."
                )
            elif write:
                _move_aside(folder)
                _make(folder)
                claim(folder)
        elif folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
            raise TargetError(f"{folder}: exists and is not a case. Give another folder with --case.")
        for role, ref in content.checkpoints.items():
            if checkpoints[role].contents is None and checkpoints[role].is_known_as(ref.identity):
                checkpoints[role].contents = ref.contents
        refs = {role: checkpoint.ref_model for role, checkpoint in checkpoints.items()}
        case = cls(folder, content.model_copy(update={"checkpoints": refs}), checkpoints)
        if write:
            case._save()
        return case

    @property
    def refs(self) -> dict[str, CheckpointRef]:
        """Role -> path, present identity and contents; those that were recorded where a checkpoint is absent."""
        return {role: self.checkpoints.ref(role) for role in self.checkpoints}

    def take_contents(self, progress: Progress = no_progress) -> None:
        """Hash all weights of all checkpoints and record that, so that any change can be found later. Steps that were
        done on other contents are then no longer current."""
        for role, contents in take_contents(self.checkpoints, progress).items():
            self.checkpoints[role].contents = contents
        self._save()

    def verify(self, progress: Progress = no_progress) -> list[str]:
        """Read all weights again and compare them with the contents that were recorded. Returns the roles that have
        such a record.

        Raises CheckpointError that names the role and the files that differ, or a checkpoint that is absent.
        """
        recorded = {role: ref.contents for role, ref in self._content.checkpoints.items() if ref.contents is not None}
        check_contents(self.checkpoints, recorded, progress, reread=True)
        return list(recorded)

    def check_silent_changes(self, progress: Progress = no_progress) -> None:
        """Compare weights whose identity is as it was with the contents that were recorded. A file that was hashed
        before, and has the same size, modification time and change time, is not read again.

        Raises as `verify`. Checkpoints of another identity are let through: their steps are no longer current, and
        their contents are recorded for the next time.
        """
        refs = self.refs
        recorded = {role: ref.contents for role, ref in refs.items() if ref.contents is not None}
        check_contents(self.checkpoints, recorded, progress)
        if len(recorded) < len(refs):
            self.take_contents(progress)

    def contents_of(self, checkpoint: Checkpoint) -> Mapping[str, str] | None:
        """The contents that were recorded of the checkpoint at this place, or else of one with this identity; None
        where the case knows neither."""
        place, records = os.path.realpath(checkpoint.location), self._content.checkpoints
        here = [role for role in records if place in map(os.path.realpath, self.checkpoints.places(role))]
        alike = [role for role, ref in records.items() if checkpoint.is_known_as(ref.identity)]
        return next((records[role].contents for role in here + alike), None)

    def path(self, name: str) -> Path:
        return self.folder / name

    def result(self, model: type[Finding]) -> Finding | None:
        """The result of one kind, read from `<kind>.json`; None where there is none yet."""
        path = self.path(f"{model.kind}.json")
        return model.load(path) if path.is_file() else None

    def save(self, result: Result, settings: Mapping[str, Any]) -> None:
        """Write a result to `<kind>.json`, with the settings and checkpoints that it was made from."""
        refs = {role: ref.model_copy(update={"contents": None}) for role, ref in self.refs.items()}
        stamped = result.model_copy(update={"settings": settings, "checkpoints": refs})
        stamped.save(self.path(f"{result.kind}.json"))

    def settings_of(self, step: str) -> dict[str, Any] | None:
        """The settings under which a step was last done; None where it was not done yet."""
        done = self._content.steps.get(step)
        return dict(done.settings) if done else None

    def done(self, step: str) -> StepRecord | None:
        """What was recorded of a step when it was last done; None where it was not done yet."""
        return self._content.steps.get(step)

    def is_current(self, step: str, settings: Mapping[str, Any], inputs: Iterable[str] = ()) -> bool:
        """Whether a step need not be done again: same checkpoints, same settings, and no step of `inputs` done since.

        Does not look at the files that the step wrote; `is_untouched` does.
        """
        done = self._content.steps.get(step)
        if done is None or _normal(done.settings) != _normal(settings):
            return False
        if not self._was_on_these_checkpoints(done):
            return False
        upstream = [self._content.steps.get(name) for name in inputs]
        return all(earlier is not None and earlier.order < done.order for earlier in upstream)

    def is_untouched(self, step: str, files: Iterable[Path]) -> bool:
        """Whether the files and directories that a step wrote are as they were when `record` was called."""
        done = self._content.steps.get(step)
        return done is not None and is_unchanged(done.left, files)

    def record(self, step: str, settings: Mapping[str, Any], files: Iterable[Path] = ()) -> None:
        """Record that a step was done with these settings on the present checkpoints, and wrote `files`."""
        steps = self._content.steps
        entry = StepRecord(
            order=1 + max((other.order for other in steps.values()), default=0),
            finished=_now(),
            settings=json.loads(_normal(settings)),
            identities={role: ref.identity for role, ref in self.refs.items()},
            contents={role: contents_digest(ref.contents) for role, ref in self.refs.items() if ref.contents},
            left=fingerprint(files),
            surroundings=surroundings(),
        )
        self._content = self._content.model_copy(update={"steps": {**steps, step: entry}})
        self._save()

    def rewrite(self, step: str, result: Result, settings: Mapping[str, Any], files: Iterable[Path]) -> None:
        """Write a step's result anew, made from what the step had found: the checkpoints need not be there.

        result: with the checkpoints of the one that it replaces. files: what the step wrote, this result included.
        The step stays where it was in the order of steps.
        """
        result.model_copy(update={"settings": settings}).save(self.path(f"{result.kind}.json"))
        done = self._content.steps[step]
        entry = done.model_copy(update={"settings": json.loads(_normal(settings)), "left": fingerprint(files)})
        self._content = self._content.model_copy(update={"steps": {**self._content.steps, step: entry}})
        self._save()

    @property
    def looks(self) -> int:
        """How often `report` prompts were looked at."""
        path = self.path(HISTORY)
        return len(whole_lines(path.read_bytes())) if path.exists() else 0

    def log_look(self, entry: Mapping[str, Any]) -> int:
        """Add a look at `report` prompts to history.jsonl, as a line. Returns how many lines there are now."""
        path = self.path(HISTORY)
        line = json.dumps({"time": _now(), **entry}, ensure_ascii=False, allow_nan=False)
        try:
            append_lines(path, line + "\n")
            return self.looks
        except OSError as error:
            raise TargetError(f"{path}: can't be written ({error.strerror or error}).") from error

    def _was_on_these_checkpoints(self, done: StepRecord) -> bool:
        """Whether a step was done on the checkpoints as they are, by identity, and by contents where both are known."""
        if done.identities.keys() != self.checkpoints.keys():
            return False
        if not all(self.checkpoints.is_known_as(role, identity) for role, identity in done.identities.items()):
            return False
        present = {role: contents_digest(ref.contents) for role, ref in self.refs.items() if ref.contents}
        return all(done.contents.get(role, digest) == digest for role, digest in present.items())

    def _save(self) -> None:
        update = {"checkpoints": self.refs, "beside": self.checkpoints.beside()}
        self._content = self._content.model_copy(update=update)
        try:
            self._content.save(self.path(FILE))
        except OSError as error:
            raise _unwritable(self.folder, error) from error


def _make(folder: Path) -> None:
    """Make the folder of a case where there is nothing yet."""
    if folder.exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> TargetError:
    return TargetError(f"{folder}: can't be written ({error.strerror or error}). Give another folder with --case.")


def _check_settings(path: Path, steps: Mapping[str, StepRecord]) -> None:
    """Raise SurgeryError for a setting of another type than steps record: the file was changed by hand, or cut."""
    for name, step in steps.items():
        for key, kind in SETTING_TYPES.items():
            if key in step.settings and not isinstance(step.settings[key], kind):
                raise SurgeryError(
                    f"{path}: steps.{name}.settings.{key}: expected a {kind.__name__}, found "
                    f"{excerpt(step.settings[key], 40)}. Remove that step from the file, and it is done again."
                )


def _move_aside(folder: Path) -> None:
    whole, number = Path(os.path.abspath(folder)), 1
    while (aside := whole.with_name(f"{whole.name}-{number}")).exists():
        number += 1
    try:
        os.rename(whole, aside)
    except OSError as error:
        raise TargetError(f"{folder}: can't be moved aside ({error.strerror or error}).") from error


def _are_same(held: CaseCheckpoints, content: CaseFile, checkpoints: Mapping[str, Checkpoint]) -> bool:
    """Whether these are the checkpoints of a case: in the same roles, with the same text stack, and each at its place
    or of its identity."""
    if held.keys() != checkpoints.keys():
        return False
    return all(
        checkpoints[role].text_stack == ref.text_stack
        and (
            os.path.realpath(checkpoints[role].location) in map(os.path.realpath, held.places(role))
            or checkpoints[role].is_known_as(ref.identity)
        )
        for role, ref in content.checkpoints.items()
    )


def _normal(settings: Mapping[str, Any]) -> str:
    """Settings as JSON, so that a tuple equals the list that a file gives back."""
    return json.dumps(settings, sort_keys=True, allow_nan=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
