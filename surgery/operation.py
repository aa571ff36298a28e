"""Executing a recipe: checkpoints in, a merged checkpoint out, one tensor at a time."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from surgery.alignment import CHUNK, Aligned, Alignment, align
from surgery.card import model_card
from surgery.checkpoint import Checkpoint, LazyTensor
from surgery.coefficients import Coefficients, keys_of
from surgery.errors import CheckpointError, RecipeError
from surgery.methods import METHODS, MergeFunction
from surgery.progress import Track, silent
from surgery.recipe import Recipe
from surgery.results import MergeResult
from surgery.workers import crew
from surgery.writer import Piece, plan, write

if TYPE_CHECKING:
    from torch import Tensor

# Bytes copied at a time where a tensor stays as it is.
COPY: Final = 1 << 24


@dataclass(frozen=True)
class Job:
    """A tensor that changes, or a part of one: the pair that it is in, and the shares of the roles that pull at it."""

    pair: Aligned
    shares: Mapping[str, float]


def operate(recipe: Recipe, out: Path, track: Track = silent) -> MergeResult:
    """Merge as the recipe says into the directory `out`, with the recipe and a model card beside the weights.

    The result has exactly the tensors, shapes, dtypes and shards of the recipe's `like`, less a stale tied head. A
    tensor that nothing pulls at keeps its bytes; so do vocabulary rows that the others lack.

    Raises CheckpointError when a checkpoint changed since the recipe was made, can't be read or holds NaN,
    AlignmentError when the checkpoints share too little, RecipeError when a coefficient fits nothing, TargetError
    when `out` can't or must not be written. `out` is then as it was.
    """
    start = time.monotonic()
    checkpoints = open_checkpoints(recipe)
    alignment = align(checkpoints, recipe.like)
    jobs = _jobs(alignment, recipe.table)
    stale = alignment.stale_heads.get(recipe.like)
    order = plan(checkpoints[recipe.like], [stale] if stale else [])
    function = METHODS[recipe.method].function

    def produce(tensor: LazyTensor) -> Iterator[Piece]:
        for view in _produced(alignment, jobs.get(tensor.name, ()), tensor, function):
            yield Piece(len(view), partial(_fill, view))

    kept = sum(tensor.name not in jobs for tensor in order.tensors)
    texts = {"recipe.yaml": recipe.text(), "README.md": model_card(recipe, alignment, len(jobs), kept)}
    notes: list[str] = []
    with crew() as pool:
        shards = write(order, out, produce, texts, checkpoints.values(), track, notes.append, pool=pool)
    return MergeResult(
        path=str(out),
        tensors=len(order.tensors),
        bytes=sum(entry.nbytes for entry in order.entries.values()),
        seconds=time.monotonic() - start,
        shards=shards,
        kept=kept,
        notes=notes,
        blended=len(jobs),
    )


def open_checkpoints(recipe: Recipe) -> dict[str, Checkpoint]:
    """The recipe's checkpoints, role -> checkpoint, known to be the files that the recipe was made for."""
    checkpoints = {role: Checkpoint.reopen(ref) for role, ref in recipe.checkpoints.items()}
    for role, checkpoint in checkpoints.items():
        expected = recipe.checkpoints[role].identity
        if checkpoint.identity != expected:
            raise CheckpointError(
                f"{role} ({checkpoint.ref}) changed since the recipe was made: its identity is {checkpoint.identity}, "
                f"the recipe's {expected}. Measure and make the recipe again, or put the new identity into it."
            )
    return checkpoints


def _jobs(alignment: Alignment, coefficients: Coefficients) -> dict[str, list[Job]]:
    """Name of a tensor in `like` -> what is done with its parts; tensors that keep their bytes are left out.

    Raises RecipeError when a key with a share fits no tensor that its role has: a typo must not merge nothing.
    """
    jobs: dict[str, list[Job]] = {}
    used: set[tuple[str, str]] = set()
    for pair in alignment.pairs:
        used |= {(key, role) for key in keys_of(pair.site) for role in pair.parts}
        shares = {
            role: share for role, share in coefficients.resolve(pair.site).items() if share and role in pair.parts
        }
        if shares:
            jobs.setdefault(pair.parts[alignment.like].name, []).append(Job(pair, shares))
    for key, asked in coefficients.items():
        for role, share in asked.items():
            if share and (key, role) not in used:
                raise RecipeError(f"coefficient {key}.{role}: fits no tensor that {alignment.like} shares with {role}.")
    return jobs


def _copied(tensor: LazyTensor, start: int = 0, stop: int | None = None) -> Iterator[memoryview]:
    """The tensor's own bytes from byte `start` to `stop`, or to its end."""
    end = tensor.nbytes if stop is None else stop
    for first in range(start, end, COPY):
        piece = memoryview(bytearray(min(COPY, end - first)))
        tensor.read_into(piece, first)
        yield piece


def _produced(
    alignment: Alignment, jobs: Iterable[Job], tensor: LazyTensor, function: MergeFunction
) -> Iterator[memoryview]:
    """The tensor's bytes in order: its parts as their jobs make them, and what lies between them as it is."""
    done, itemsize = 0, tensor.dtype.itemsize
    for start, stop, members in _runs(alignment, jobs, tensor):
        yield from _copied(tensor, done * itemsize, start * itemsize)
        if len(members) == 1 and members[0].pair.parts[alignment.like].is_run(tensor.shape):
            yield from map(_bytes_of, _merged(alignment, members[0], tensor, function))
        else:
            yield _bytes_of(_assembled(alignment, members, tensor, function, (start, stop)))
        done = stop
    yield from _copied(tensor, done * itemsize)


def _runs(alignment: Alignment, jobs: Iterable[Job], tensor: LazyTensor) -> list[tuple[int, int, list[Job]]]:
    """The stretches of a tensor's entries that change, in order, each with its jobs: those whose entries interleave
    (columns of one matrix) share one."""
    boxes = sorted(((*job.pair.parts[alignment.like].box(tensor.shape), job) for job in jobs), key=lambda box: box[:2])
    runs: list[tuple[int, int, list[Job]]] = []
    for start, size, job in boxes:
        if runs and start < runs[-1][1]:
            first, stop, members = runs.pop()
            runs.append((first, max(stop, start + size), [*members, job]))
        else:
            runs.append((start, start + size, [job]))
    return runs


def _assembled(
    alignment: Alignment, jobs: Iterable[Job], tensor: LazyTensor, function: MergeFunction, run: tuple[int, int]
) -> "Tensor":
    """A stretch of a tensor with every job's part put into its place; held in memory as a whole."""
    import torch

    start, stop = run
    result = tensor.read(start, stop)
    for job in jobs:
        part = job.pair.parts[alignment.like]
        first, size = part.box(tensor.shape)
        merged = torch.cat(list(_merged(alignment, job, tensor, function)))
        view = part.view(result[first - start : first - start + size], tensor.shape)
        view.copy_(merged.view(view.shape))
    return result


def _merged(alignment: Alignment, job: Job, tensor: LazyTensor, function: MergeFunction) -> Iterator["Tensor"]:
    """What a job makes of its part, chunk by chunk in the order of the pair's entries."""
    roles = [alignment.like, *job.shares]
    for chunk in alignment.chunks(job.pair, roles, CHUNK):
        adapted = chunk.pop(alignment.like)
        merged = function(adapted, chunk, job.shares)
        if not merged.isfinite().all():
            culprits = [
                alignment.label(job.pair, role)
                for role, part in ((alignment.like, adapted), *chunk.items())
                if not part.isfinite().all()
            ]
            raise CheckpointError(
                f"{' and '.join(culprits) or alignment.label(job.pair, alignment.like)}: NaN or infinite values"
                + ("." if culprits else f" arise when it is merged as {tensor.dtype_name}.")
            )
        yield merged


def _bytes_of(vector: "Tensor") -> memoryview:
    import torch

    return vector.contiguous().view(torch.uint8).numpy().data


def _fill(view: memoryview, buffer: memoryview) -> None:
    buffer[:] = view
