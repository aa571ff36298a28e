"""Merges of a choice, measured by the workers of an engine: each loads the models once, and moves them to one after
another."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from vlsurgery.probes.evaluation.subjects import reopened
from vlsurgery.probes.grid_search import coarse_grid
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import Loader, quiet_transformers
from vlsurgery.probes.models.forward import keeping_pictures
from vlsurgery.probes.objective import Requirements
from vlsurgery.probes.objective_scorer import ObjectivePrompts, ObjectiveScorer
from vlsurgery.probes.trials import MeasuredTable, MeasureTables, Table
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.results import CheckpointRef
from vlsurgery.surgery.runtime.engine import Engine
from vlsurgery.surgery.runtime.worker_pool import cores


@dataclass(frozen=True)
class NumberedTable:
    """The coefficients of one of several merges. at: its place among them."""

    at: int
    table: Table


@dataclass(frozen=True)
class MergeMeasurer:
    """Called once in a worker's process, it returns the function that measures a merge.

    checkpoints: of the adapted model and the sources, by role. like: the role that the others are aligned with. wanted:
    what is wanted of the prompts. threads: of a pass through the model, at most; sums may differ in their last bits
    between one thread and several.
    """

    checkpoints: Mapping[str, CheckpointRef]
    like: str
    sources: tuple[str, ...]
    loader: Loader
    asked: ObjectivePrompts
    wanted: Requirements
    threads: int

    def __call__(self) -> Callable[[NumberedTable], Iterator[MeasuredTable]]:
        """Raises CheckpointError for a checkpoint that can't be opened here, or is another one."""
        torch.set_num_threads(min(self.threads, cores()))  # The process is the worker's own.
        quiet_transformers()
        checkpoints = {role: reopened(role, ref) for role, ref in self.checkpoints.items()}
        chat = self.loader.load(checkpoints["adapted"])
        live = InMemoryMerge(chat, align(checkpoints, self.like), self.sources)
        return _MergeSeat(live, ObjectiveScorer(self.wanted, *self.asked.encoded(chat))).do


class _MergeSeat:
    """One worker's live merge, which stays where it was last moved to."""

    def __init__(self, live: InMemoryMerge, scorer: ObjectiveScorer) -> None:
        self._live, self._scorer = live, scorer
        self._until_end = ExitStack()
        self._until_end.enter_context(keeping_pictures(live.chat))
        self._until_end.enter_context(live.staying())

    def do(self, item: NumberedTable) -> Iterator[MeasuredTable]:
        began = time.perf_counter()
        with self._live.at(item.table) as chat:
            readings = self._scorer.measure(chat)
        yield MeasuredTable(item.at, readings, time.perf_counter() - began)


@contextmanager
def measuring(
    engine: Engine | None, live: InMemoryMerge, loader: Loader, asked: ObjectivePrompts, wanted: Requirements
) -> Iterator[MeasureTables | None]:
    """What measures merges like a live one by an engine's workers, while the block runs; None without an engine.

    As many workers are taken as the first grid of a search has merges, if the engine has so many.
    """
    if engine is None:
        yield None
        return
    refs = {role: checkpoint.ref_model for role, checkpoint in live.alignment.checkpoints.items()}
    measurer = MergeMeasurer(
        refs, live.alignment.like, live.sources, loader, asked.findable(), wanted, torch.get_num_threads()
    )
    with engine.staying(measurer, len(coarse_grid(len(live.sources)))) as do:

        def measure(tables: Sequence[Table]) -> Generator[MeasuredTable, None, None]:
            return do([NumberedTable(at, table) for at, table in enumerate(tables)])

        yield measure
