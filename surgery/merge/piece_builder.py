"""Cutting the tensors of a merge into pieces: sites merged, and what lies between them copied."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from vlsurgery.surgery.checkpoint import LazyTensor
from vlsurgery.surgery.merge.kept_ranges import KeptRanges
from vlsurgery.surgery.merge.pieces import copied_pieces, interleaved_pieces, merged_pieces
from vlsurgery.surgery.merge.plan import SiteMerge
from vlsurgery.surgery.merge.preparation import PreparedMerge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.streams import SiteStream
from vlsurgery.surgery.writer import Piece


@dataclass(frozen=True)
class PieceBuilder:
    """Cuts a tensor of the result into pieces that can each be made alone, in any thread.

    non_finite: names of tensors of which copied entries are NaN or infinite; filled as pieces are made. scratch: a
    directory on the output's disk, for what is fetched from a store and read more than once; None keeps nothing.
    """

    recipe: Recipe
    prepared: PreparedMerge
    pool: ThreadPoolExecutor
    non_finite: set[str] = field(default_factory=set)
    scratch: Path | None = None

    def pieces(self, tensor: LazyTensor) -> Iterator[Piece]:
        """The pieces of a tensor in order: its sites merged, and what lies between them copied."""
        recipe, method = self.recipe, self.recipe.merge_method
        merges = self.prepared.merge_plan.sites.get(tensor.name, ())
        stored = (tensor.is_float and recipe.safetensors_dtype) or tensor.safetensors_dtype
        done = 0
        for start, stop, members in self._runs(tensor, merges):
            yield from copied_pieces(tensor, stored, done, start, self._tell)
            if len(members) == 1 and members[0].pair.parts[recipe.like].is_contiguous(tensor.shape):
                yield from merged_pieces(self._stream(members[0], self.pool), method, stored)
            else:
                streams = [self._stream(each, None) for each in members]
                yield from interleaved_pieces(tensor, stored, streams, method, start, stop)
            done = stop
        yield from copied_pieces(tensor, stored, done, tensor.numel, self._tell)

    def _tell(self, tensor: LazyTensor) -> None:
        self.non_finite.add(tensor.name)

    def _stream(self, merge: SiteMerge, pool: ThreadPoolExecutor | None) -> SiteStream:
        recipe, method = self.recipe, self.recipe.merge_method
        stream = SiteStream(self.prepared.alignment, merge, recipe.origin, method.whole_rows, recipe.seed, pool)
        if self.scratch is None or method.prepare is None or not stream.is_remote:
            return stream
        return replace(stream, kept=KeptRanges(self.scratch))

    def _runs(self, tensor: LazyTensor, merges: Sequence[SiteMerge]) -> list[tuple[int, int, list[SiteMerge]]]:
        """The ranges of a tensor's entries that change, in order: (start, stop, sites). Sites whose ranges overlap
        (columns of one matrix) share a range."""
        like = self.recipe.like
        spans = sorted(
            ((*each.pair.parts[like].span(tensor.shape), each) for each in merges), key=lambda span: span[:2]
        )
        runs: list[tuple[int, int, list[SiteMerge]]] = []
        for start, size, each in spans:
            if runs and start < runs[-1][1]:
                first, stop, members = runs.pop()
                runs.append((first, max(stop, start + size), [*members, each]))
            else:
                runs.append((start, start + size, [each]))
        return runs
