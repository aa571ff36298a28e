"""A place where the models of a probe are loaded, one at a time: in this process, or in a worker's."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from vlsurgery.probes.attribution_passes import SOURCE, AttributionPasses
from vlsurgery.probes.evaluation.generate import Completion
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import ChatModel, Loader, quiet_transformers
from vlsurgery.probes.models.forward import keeping_pictures
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import TargetsResult
from vlsurgery.probes.targets import working_set
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint.reopening import reopened
from vlsurgery.surgery.results import CheckpointRef
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.runtime.worker_pool import cores

GRAFT: Final = "graft"
Written = Callable[[str, Sequence[str], Sequence[Completion]], None]


class Task(Protocol):
    """A part of a probe, as plain data."""

    def do(self, seat: "ProbeSeat", /) -> Any: ...


@dataclass(frozen=True)
class NumberedTask:
    """One of several tasks. at: its place among them."""

    at: int
    task: Task


@dataclass(frozen=True)
class HandedOn:
    """What tasks hand on to later ones, in files that all workers see: the base's states, and what models said.

    answers: what was said so far, for a probe that is begun again.
    """

    folder: Path

    @property
    def states(self) -> Path:
        return self.folder / "states.safetensors"

    @property
    def targets(self) -> Path:
        return self.folder / "targets.json"

    @property
    def answers(self) -> Path:
        return self.folder / "answers.jsonl"


class ProbeSeat:
    """The model that was last asked for.

    alignment: of all roles. prompts: all of them, by id. written: called with a role, ids of prompts and completions as
    soon as these are there.
    """

    def __init__(
        self,
        alignment: Alignment,
        prompts: Sequence[Prompt],
        loader: Loader,
        files: HandedOn,
        progress: Progress = no_progress,
        written: Written | None = None,
    ) -> None:
        self.alignment, self.loader, self.files, self.progress = alignment, loader, files, progress
        self.written = written
        self.prompts = {prompt.id: prompt for prompt in prompts}
        self._role: str | None = None
        self._chat: ChatModel | None = None
        self._live: InMemoryMerge | None = None
        self._passes: AttributionPasses | None = None
        self._grafted = ExitStack()  # Holds the graft, while one task of it follows another.
        self._is_grafted = False
        self._model_state = ExitStack()

    def do(self, item: NumberedTask) -> Iterator[tuple[int, Any]]:
        yield item.at, item.task.do(self)

    def chat(self, role: str) -> ChatModel:
        """The model of a role, at its own weights; of the graft, the adapted one at the base's."""
        if role != GRAFT:
            return self._model(role)
        if not self._is_grafted:
            live = self.live()
            self._grafted.enter_context(live.at(live.everywhere(**{SOURCE: 1.0})))
            self._is_grafted = True
        return self.live_as_it_is().chat

    def live(self) -> InMemoryMerge:
        """The adapted model, whose blocks can be moved toward the base's."""
        self._model("adapted")
        return self.live_as_it_is()

    def live_as_it_is(self) -> InMemoryMerge:
        if self._live is None:
            assert self._chat is not None  # `live` loads it.
            self._live = InMemoryMerge(self._chat, self.alignment.among(("adapted", SOURCE)), (SOURCE,))
        return self._live

    def passes(self) -> AttributionPasses:
        """What an attribution on the `fit` prompts is made of."""
        if self._passes is None:
            live = self.live()
            targets = TargetsResult.load(self.files.targets)
            working = working_set(live.chat, list(self.prompts.values()), targets, "fit")
            self._model_state.enter_context(keeping_pictures(live.chat))
            self._passes = AttributionPasses(live, working, self.progress)
        return self._passes

    def close(self) -> None:
        """Let the model go."""
        self._settle()
        self._model_state.close()
        self._role = self._chat = self._live = self._passes = None

    def _settle(self) -> None:
        """Have the adapted model's own weights in it."""
        self._grafted.close()
        self._is_grafted = False
        if self._passes is not None:
            self._passes.restore()

    def _model(self, role: str) -> ChatModel:
        self._settle()
        if self._chat is None or self._role != role:
            self.close()
            self._chat, self._role = self.loader.load(self.alignment.checkpoints[role]), role
        return self._chat


@dataclass(frozen=True)
class ProbeSetUp:
    """Called once in a worker's process, it returns the function that does tasks.

    like: the role that the others are aligned with. threads: of a pass through a model, at most; sums may differ in
    their last bits between one thread and several.
    """

    checkpoints: Mapping[str, CheckpointRef]
    like: str
    prompts: tuple[Prompt, ...]
    loader: Loader
    files: HandedOn
    threads: int

    def __call__(self) -> Callable[[NumberedTask], Iterator[tuple[int, Any]]]:
        """Raises CheckpointError for a checkpoint that can't be opened here, or is another one."""
        torch.set_num_threads(min(self.threads, cores()))  # The process is the worker's own.
        quiet_transformers()
        alignment = align({role: reopened(role, ref) for role, ref in self.checkpoints.items()}, self.like)
        return ProbeSeat(alignment, self.prompts, self.loader, self.files).do
