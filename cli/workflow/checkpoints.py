"""The checkpoints of a case: opened when they are first needed; where they are absent, known by what was recorded."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.references import base_and_adapter, holds_weights
from vlsurgery.surgery.checkpoint.remote.store import UnreachableError
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.results import CheckpointRef
from vlsurgery.surgery.runtime.urls import is_url


class CaseCheckpoints(Mapping[str, Checkpoint]):
    """Role -> checkpoint, in the order of the case.

    A checkpoint is looked for where it was beside the case's folder, so that case and checkpoints can be moved
    together, and where it was by its absolute path. Of two, the one with the recorded identity is taken.
    """

    def __init__(
        self,
        folder: Path,
        recorded: Mapping[str, CheckpointRef],
        beside: Mapping[str, Sequence[str]],
        opened: Mapping[str, Checkpoint],
        allow_pickle: bool = False,
    ) -> None:
        """recorded: role -> reference. beside: role -> paths of its folders from the case's folder.
        opened: those that are open. allow_pickle: take pickled weights; what a case says of them is no leave, and
        without leave a checkpoint that holds nothing else counts as absent."""
        self._folder = folder
        self._recorded = recorded
        self._beside = beside
        self._opened: dict[str, Checkpoint | None] = dict(opened)
        self.allow_pickle = allow_pickle

    def __iter__(self) -> Iterator[str]:
        return iter(self._recorded)

    def __len__(self) -> int:
        return len(self._recorded)

    def __contains__(self, role: object) -> bool:
        return role in self._recorded

    def __getitem__(self, role: str) -> Checkpoint:
        """The checkpoint as its files are now. Raises CheckpointError that says how to go on where it is absent."""
        found = self.find(role)
        return self._opened_as_recorded(role) if found is None else found

    def find(self, role: str) -> Checkpoint | None:
        """The checkpoint as its files are now; None where it is absent. Raises CheckpointError where it is damaged."""
        if role not in self._opened:
            self._opened[role] = self._open(role)
        return self._opened[role]

    def ref(self, role: str) -> CheckpointRef:
        """Path and identity as they are now; those that were recorded where the checkpoint is absent."""
        found = self.find(role)
        return self._recorded[role] if found is None else found.ref_model

    def is_known_as(self, role: str, identity: str) -> bool:
        """Whether the checkpoint, or the record of an absent one, has that identity."""
        found = self.find(role)
        return self._recorded[role].identity == identity if found is None else found.is_known_as(identity)

    def places(self, role: str) -> list[str]:
        """The references by which it is looked for, the one beside the case first."""
        home = self._folder.absolute()
        beside = "+".join(os.path.normpath(home / part) for part in self._beside.get(role, ()))
        return list(dict.fromkeys(filter(None, (beside, self._recorded[role].path))))

    def beside(self) -> dict[str, list[str]]:
        """Role -> the paths of its folders from the case's folder; a role is missing where there is no such path
        (another drive, a URL)."""
        paths = {}
        for role in self:
            found = self.find(role)
            if found is not None and found.remote is not None:
                continue
            try:
                paths[role] = (
                    list(self._beside.get(role, ()))
                    if found is None
                    else [os.path.relpath(folder, self._folder) for folder in found.folders]
                )
            except ValueError:
                continue
        return paths

    def _opened_as_recorded(self, role: str) -> Checkpoint:
        """What opening an absent checkpoint at its absolute path comes to: the error that says what is wrong there,
        and how to go on."""
        try:
            return Checkpoint.reopen(self._allowed(role))
        except CheckpointError as error:
            if self._lacks_leave(role):
                raise CheckpointError(f"{role}: {error}") from error
            others = [place for place in self.places(role) if place != self._recorded[role].path]
            nor = f" Nor is it at {others[0]}." if others else ""
            raise CheckpointError(
                f"{role}: {error}{nor} If the case's checkpoints lie elsewhere now, say where: "
                f"vlsurgery diff {' '.join(map(str.upper, self))} --case {self._folder}."
            ) from error

    def _open(self, role: str) -> Checkpoint | None:
        recorded = self._allowed(role)
        opened: list[Checkpoint] = []
        for place in () if self._lacks_leave(role) else filter(_is_there, self.places(role)):
            try:
                opened.append(Checkpoint.reopen(recorded.model_copy(update={"path": place})))
            except UnreachableError:
                continue
            if opened[-1].is_known_as(recorded.identity):
                return opened[-1]
        return opened[0] if opened else None

    def _allowed(self, role: str) -> CheckpointRef:
        """The recorded reference, with leave to take pickled weights where this command has it."""
        return self._recorded[role].model_copy(update={"pickled": self.allow_pickle})

    def _lacks_leave(self, role: str) -> bool:
        """Whether a checkpoint's weights were pickled, and this command may not take such weights."""
        return self._recorded[role].pickled and not self.allow_pickle


def _is_there(place: str) -> bool:
    """Whether each directory that a reference names holds weights, be they damaged. Of a URL that shows when it is
    opened."""
    return all(part is None or is_url(part) or holds_weights(Path(part)) for part in base_and_adapter(place))
