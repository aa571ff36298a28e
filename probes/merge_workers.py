"""Merges of a choice, measured by the workers of an engine, and gradients at merges: each worker loads the models once,
and moves them to one merge after another."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from vlsurgery.probes.gradients import Gradients, PromptGradients, Readout
from vlsurgery.probes.grid_search import coarse_grid
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import Loader, quiet_transformers
from vlsurgery.probes.models.forward import keeping_pictures
from vlsurgery.probes.objective import Requirements
from vlsurgery.probes.objective_scorer import ObjectivePrompts, ObjectiveScorer
from vlsurgery.probes.trials import MeasuredTable, Table
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint.reopening import reopened
from vlsurgery.surgery.results import CheckpointRef
from vlsurgery.surgery.runtime.engine import Does, Engine
from vlsurgery.surgery.runtime.progress import Progress
from vlsurgery.surgery.runtime.worker_pool import cores


@dataclass(frozen=True)
class NumberedTable:
    """The coefficients of one of several merges. at: its place among them."""

    at: int
    table: Table


@dataclass(frozen=True)
class GradientBatch:
    """One batch of `fit` prompts, whose gradients are to be taken at a merge. number: of the batch."""

    number: int
    table: Table


@dataclass(frozen=True)
class BatchGradients:
    """What was taken. owner: [B] the prompts, by their places. z: [B] float64, in nats. jacobian: [B, blocks, sources]
    float32, nats per unit of coefficient."""

    owner: Tensor
    z: Tensor
    jacobian: Tensor


Asked = NumberedTable | GradientBatch
Found = MeasuredTable | BatchGradients


@dataclass(frozen=True)
class MergeMeasurer:
    """Called once in a worker's process, it returns the function that measures a merge or takes gradients at one.

    checkpoints: of the adapted model and the sources, by role. like: the role that the others are aligned with. select:
    the prompts that a merge is measured on; wanted: what is wanted of them. fit: those whose gradients are taken; None
    where none are. tokens: of a batch, at most, so that all workers have the same batches. threads: of a pass through
    the model, at most; sums may differ in their last bits between one thread and several.
    """

    checkpoints: Mapping[str, CheckpointRef]
    like: str
    sources: tuple[str, ...]
    loader: Loader
    select: ObjectivePrompts
    wanted: Requirements
    fit: ObjectivePrompts | None
    tokens: int
    threads: int

    def __call__(self) -> Callable[[Asked], Iterator[Found]]:
        """Raises CheckpointError for a checkpoint that can't be opened here, or is another one."""
        torch.set_num_threads(min(self.threads, cores()))  # The process is the worker's own.
        quiet_transformers()
        checkpoints = {role: reopened(role, ref) for role, ref in self.checkpoints.items()}
        chat = self.loader.load(checkpoints["adapted"])
        chat.room.tokens = self.tokens
        live = InMemoryMerge(chat, align(checkpoints, self.like), self.sources)
        return _MergeSeat(live, ObjectiveScorer(self.wanted, *self.select.encoded(chat)), self.fit).do


class _MergeSeat:
    """One worker's live merge, which stays where it was last moved to."""

    def __init__(self, live: InMemoryMerge, scorer: ObjectiveScorer, fit: ObjectivePrompts | None) -> None:
        self._live, self._scorer, self._fit = live, scorer, fit
        self._gradients: tuple[Table, Gradients] | None = None
        self._until_end = ExitStack()
        self._until_end.enter_context(keeping_pictures(live.chat))
        self._until_end.enter_context(live.staying())

    def do(self, item: Asked) -> Iterator[Found]:
        if isinstance(item, GradientBatch):
            yield self._taken(item)
            return
        began = time.perf_counter()
        with self._live.at(item.table) as chat:
            readings = self._scorer.measure(chat)
        yield MeasuredTable(item.at, readings, time.perf_counter() - began)

    @cached_property
    def _batches(self) -> list[Readout]:
        assert self._fit is not None  # `MergeWorkers` asks for gradients only where there are prompts for it.
        choices, openings = self._fit.encoded(self._live.chat)
        return [*choices, *openings]

    def _taken(self, item: GradientBatch) -> BatchGradients:
        """The gradients of a batch. Whether prompts can be told apart is tried anew at every merge."""
        if self._gradients is None or self._gradients[0] != item.table:
            self._gradients = item.table, Gradients(self._live)
        batch = self._batches[item.number]
        owner = batch.owner.cpu()
        found = self._gradients[1].at(item.table, [batch], [""] * (int(owner.max()) + 1))
        return BatchGradients(owner, found.z[owner], found.jacobian[owner])


@dataclass(frozen=True)
class MergeWorkers:
    """Workers that have models like a live merge. do: what they are asked."""

    live: InMemoryMerge
    do: Does[Asked, Found]

    def measure(self, tables: Sequence[Table]) -> Generator[MeasuredTable, None, None]:
        """What is measured of merges, in any order."""
        with closing(self.do([NumberedTable(at, table) for at, table in enumerate(tables)])) as results:
            for found in results:
                assert isinstance(found, MeasuredTable)
                yield found

    def gradients(self, table: Table, batches: int, prompts: Sequence[str], progress: Progress) -> PromptGradients:
        """As `prompt_gradients` of the `fit` prompts at a merge. batches: how many they make."""
        live = self.live
        z = torch.zeros(len(prompts), dtype=torch.float64)
        jacobian = torch.zeros(len(prompts), len(live.blocks), len(live.sources))
        with closing(self.do([GradientBatch(number, table) for number in range(batches)])) as results:
            for found in progress(results, "gradients of the prompts", batches):
                assert isinstance(found, BatchGradients)
                z[found.owner], jacobian[found.owner] = found.z, found.jacobian
        return PromptGradients(tuple(prompts), live.blocks, live.sources, live.tensor(table), z, jacobian)


@contextmanager
def merge_workers(
    engine: Engine | None,
    live: InMemoryMerge,
    loader: Loader,
    select: tuple[ObjectivePrompts, Requirements],
    fit: ObjectivePrompts | None,
) -> Iterator[MergeWorkers | None]:
    """An engine's workers with models like a live merge, while the block runs; None without an engine.

    select, fit: as `MergeMeasurer` has them. As many workers are taken as the first grid of a search has merges, if the
    engine has so many.
    """
    if engine is None:
        yield None
        return
    refs = {role: checkpoint.ref_model for role, checkpoint in live.alignment.checkpoints.items()}
    measurer = MergeMeasurer(
        checkpoints=refs,
        like=live.alignment.like,
        sources=live.sources,
        loader=loader,
        select=select[0].findable(),
        wanted=select[1],
        fit=fit and fit.findable(),
        tokens=live.chat.room.tokens,
        threads=torch.get_num_threads(),
    )
    with engine.staying(measurer, len(coarse_grid(len(live.sources)))) as do:
        yield MergeWorkers(live, do)
