"""The work of a merge's worker: it opens the checkpoints of a recipe by itself, and writes one shard after another."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.merge.piece_builder import PieceBuilder
from vlsurgery.surgery.merge.preparation import PreparedMerge, prepare_merge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.runtime.worker_pool import worker_pool
from vlsurgery.surgery.writer.filling import FilledShard, write_shard
from vlsurgery.surgery.writer.journal import JOURNAL


@dataclass(frozen=True)
class ShardMerger:
    """Called once in a worker's process, it returns the function that merges and writes one shard of the result.

    folder: where the merge is written until it is complete.
    """

    recipe: Recipe
    folder: Path

    def __call__(self) -> Callable[[str], Iterator[FilledShard]]:
        """Raises as `prepare_merge`, and TargetError where this process doesn't see the folder."""
        ready = prepare_merge(self.recipe)
        if not (self.folder / JOURNAL).is_file():
            raise TargetError(f"{self.folder}: is not there for a worker. Give a directory that all machines share.")
        return lambda file: self._merged(ready, file)

    def _merged(self, ready: PreparedMerge, file: str) -> Iterator[FilledShard]:
        (shard,) = (each for each in ready.shard_plan.shards if each.file == file)
        with worker_pool() as pool:
            builder = PieceBuilder(self.recipe, ready, pool, scratch=self.folder.parent)
            yield write_shard(shard, self.folder, builder.pieces, pool, builder.non_finite)
