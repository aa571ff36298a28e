"""Pieces of a merged checkpoint: bytes of a tensor that stay, bytes that a method makes."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from surgery.checkpoint import TORCH_NAMES, LazyTensor
from surgery.errors import CheckpointError
from surgery.merging.streams import SiteStream
from surgery.methods import Block, Method
from surgery.workers import cores
from surgery.writer import Piece

# Entries of a piece. A site of up to as many is surveyed and merged by one thread, in one go.
PIECE: Final = 1 << 21
WHOLE: Final = 1 << 24

# What such sites may take in the memory of all threads, for that they are read once and not for every look.
HELD: Final = 192 << 20

# Sums below this have no summand that is too large for bfloat16 or float32, unless two such cancel to the last digit.
_HARMLESS: Final = 1e30


def copied(tensor: LazyTensor, code: str, start: int, stop: int) -> Iterator[Piece]:
    """The tensor's entries `start` to `stop` as they are, stored as `code`."""
    dtype = _dtype(code)
    for first in range(start, stop, PIECE):
        last = min(first + PIECE, stop)
        if code == tensor.code:
            size = tensor.nbytes // max(1, tensor.numel)
            yield Piece((last - first) * size, partial(tensor.read_into, start=first * size))
        else:
            yield Piece((last - first) * dtype.itemsize, partial(_cast, tensor, dtype, first, last))


def _cast(tensor: LazyTensor, dtype: torch.dtype, first: int, last: int, buffer: memoryview) -> None:
    vector = tensor.read(first, last)
    _store(vector, torch.frombuffer(buffer, dtype=dtype), lambda: f"{tensor.shard}: tensor {tensor.name}")


def merged(stream: SiteStream, method: Method, code: str) -> Iterator[Piece]:
    """A site as the method makes it. A method that must see the whole of it first does so in all threads where it is
    large, and within its one piece where it is not."""
    itemsize, numel = _dtype(code).itemsize, stream.numel
    if method.survey is not None and numel <= WHOLE:
        alone = replace(stream, pool=None, held=stream.nbytes * cores() <= HELD)
        yield Piece(numel * itemsize, partial(_operate, alone, method, code, _NOT_YET, 0, numel))
        return
    facts = _survey(stream, method)
    step = max(1, PIECE // stream.block) * stream.block
    for start in range(0, numel, step):
        stop = min(start + step, numel)
        yield Piece((stop - start) * itemsize, partial(_operate, stream, method, code, facts, start, stop))


_NOT_YET: Final = object()


def _operate(
    stream: SiteStream, method: Method, code: str, facts: Any, start: int, stop: int, buffer: memoryview
) -> None:
    """Fill a piece's bytes with the entries `start` to `stop` of the merged site."""
    out = torch.frombuffer(buffer, dtype=_dtype(code))
    for place, vector in _made(stream, method, facts, start, stop):
        _store(vector, out[place - start : place - start + len(vector)], lambda: _culprits(stream))


def _made(stream: SiteStream, method: Method, facts: Any, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
    """The merged blocks from entry `start` to `stop`, each with its place. facts: what a survey found."""
    known = _survey(stream, method) if facts is _NOT_YET else facts
    for block in stream.blocks(start, stop):
        yield block.start, _combined(method, stream, known, block)


def _survey(stream: SiteStream, method: Method) -> Any:
    if method.survey is None or not stream.job.settings.weights:
        return None
    return method.survey(stream, stream.job.settings)


def _combined(method: Method, stream: SiteStream, facts: Any, block: Block) -> Tensor:
    """The merged block; where no model has a weight, the origin's own."""
    settings = stream.job.settings
    return method.combine(block, settings, facts) if settings.weights else block.origin


def assembled(
    tensor: LazyTensor, code: str, streams: Sequence[SiteStream], method: Method, run: tuple[int, int]
) -> Iterator[Piece]:
    """A stretch of a tensor, the entries `run`, in which the entries of several sites take turns: put together in
    memory as a whole once its first piece is asked for, and let go of with its last one."""
    whole = _Assembly(partial(_put_together, tensor, _dtype(code), streams, method, run))
    start, stop = run
    for first in range(start, stop, PIECE):
        last = min(first + PIECE, stop)
        cut = slice((first - start) * _dtype(code).itemsize, (last - start) * _dtype(code).itemsize)
        yield Piece(cut.stop - cut.start, partial(whole.give, cut))


class _Assembly:
    """Bytes that are made once and given away piece by piece."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self._make = make
        self._made: Tensor | None = None
        self._given = 0
        self._lock = threading.Lock()

    def give(self, cut: slice, buffer: memoryview) -> None:
        """Fill a buffer with some of the bytes."""
        with self._lock:
            if self._made is None:
                self._made = self._make().view(torch.uint8)
            buffer[:] = self._made[cut].numpy().data
            self._given += cut.stop - cut.start
            if self._given == len(self._made):
                self._made = None


def _put_together(
    tensor: LazyTensor, dtype: torch.dtype, streams: Sequence[SiteStream], method: Method, run: tuple[int, int]
) -> Tensor:
    start, stop = run
    whole = tensor.read(start, stop)
    result = whole.to(torch.promote_types(whole.dtype, torch.float32))
    for stream in streams:
        pair, like = stream.job.pair, stream.alignment.like
        part = pair.parts[like]
        first, size = part.box(tensor.shape)
        vector = result.new_empty(stream.numel)
        for place, made in _made(stream, method, _NOT_YET, 0, stream.numel):
            vector[place : place + len(made)] = made
        view = part.view(result[first - start : first - start + size], tensor.shape)
        view.copy_(vector.view(view.shape))
    stored = torch.empty(len(result), dtype=dtype)
    _store(result, stored, lambda: _culprits(streams[0]))
    return stored


def _store(vector: Tensor, out: Tensor, culprits: Callable[[], str]) -> None:
    """Round a vector into `out`, once it is known to hold numbers alone, none too large for the dtype.

    One NaN or infinity among the entries makes the sum one, so the sum tells for nothing.
    """
    total = float(vector.sum())
    if not math.isfinite(total) and not bool(vector.isfinite().all()):
        raise CheckpointError(f"{culprits()}: NaN or infinite values. Such a checkpoint is broken; get it again.")
    narrow = torch.float16 in (out.dtype, vector.dtype) or vector.dtype.itemsize > max(4, out.dtype.itemsize)
    if narrow or not abs(total) < _HARMLESS:
        limit, stored = torch.finfo(out.dtype).max, str(out.dtype).removeprefix("torch.")
        if float(vector.abs().max()) > limit:
            raise CheckpointError(
                f"{culprits()}: values above {limit:g} arise when it is merged as {stored}. Store the result with "
                "more room: --dtype bfloat16 or float32."
            )
    out.copy_(vector)


def _culprits(stream: SiteStream) -> str:
    """Which of a site's tensors hold NaN or infinite values; that of `like` where they arise in the merge."""
    alignment, pair = stream.alignment, stream.job.pair
    broken = [alignment.label(pair, role) for role in stream.roles if not alignment.load(pair, role).isfinite().all()]
    return " and ".join(broken) or f"{alignment.label(pair, alignment.like)}, merged"


def _dtype(code: str) -> torch.dtype:
    dtype = getattr(torch, TORCH_NAMES[code])
    assert isinstance(dtype, torch.dtype)
    return dtype
