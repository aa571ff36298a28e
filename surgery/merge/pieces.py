"""Pieces of a merged checkpoint: bytes of a tensor that stay, bytes that a method makes."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from vlsurgery.surgery.checkpoint import NUMPY_NAMES, TORCH_NAMES, LazyTensor
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.streams import SiteStream
from vlsurgery.surgery.methods import Chunk, Method
from vlsurgery.surgery.runtime.arrays import BFLOAT16, upcast
from vlsurgery.surgery.runtime.worker_pool import cores
from vlsurgery.surgery.writer.writer import Piece

# Entries of a piece. A site of up to as many is surveyed and merged by one thread, in one go.
PIECE: Final = 1 << 21
WHOLE: Final = 1 << 24

# What such sites may take in the memory of all threads, for that they are read once and not for every look.
HELD: Final = 192 << 20

# The largest number of each dtype that weights are stored in.
_LIMITS: Final = {
    "F16": 65504.0,
    "BF16": (2 - 2**-7) * 2.0**127,
    "F32": float(np.finfo(np.float32).max),
    "F64": float(np.finfo(np.float64).max),
}


def copied(tensor: LazyTensor, safetensors_dtype: str, start: int, stop: int) -> Iterator[Piece]:
    """The tensor's entries `start` to `stop` as they are, stored as `safetensors_dtype`."""
    for first in range(start, stop, PIECE):
        last = min(first + PIECE, stop)
        if safetensors_dtype == tensor.safetensors_dtype:
            size = tensor.nbytes // max(1, tensor.numel)
            yield Piece((last - first) * size, partial(tensor.read_into, start=first * size))
        else:
            yield Piece(
                (last - first) * _dtype(safetensors_dtype).itemsize,
                partial(_cast, tensor, safetensors_dtype, first, last),
            )


def _cast(tensor: LazyTensor, safetensors_dtype: str, first: int, last: int, buffer: memoryview) -> None:
    out = np.frombuffer(buffer, _dtype(safetensors_dtype))
    _store(upcast(tensor.array(first, last)), out, safetensors_dtype, lambda: f"{tensor.shard}: tensor {tensor.name}")


def merged(stream: SiteStream, method: Method, safetensors_dtype: str) -> Iterator[Piece]:
    """A site as the method makes it. A method that must see the whole of it first does so in all threads where it is
    large, and within its one piece where it is not."""
    itemsize, numel = _dtype(safetensors_dtype).itemsize, stream.numel
    if method.prepare is not None and numel <= WHOLE:
        alone = replace(stream, pool=None, held=stream.nbytes * cores() <= HELD)
        yield Piece(numel * itemsize, partial(_operate, alone, method, safetensors_dtype, _NOT_YET, 0, numel))
        return
    state = _survey(stream, method)
    step = max(1, PIECE // stream.chunk) * stream.chunk
    for start in range(0, numel, step):
        stop = min(start + step, numel)
        yield Piece((stop - start) * itemsize, partial(_operate, stream, method, safetensors_dtype, state, start, stop))


_NOT_YET: Final = object()


def _operate(
    stream: SiteStream, method: Method, safetensors_dtype: str, state: Any, start: int, stop: int, buffer: memoryview
) -> None:
    """Fill a piece's bytes with the entries `start` to `stop` of the merged site."""
    out = np.frombuffer(buffer, _dtype(safetensors_dtype))
    for place, vector in _made(stream, method, state, start, stop):
        _store(vector, out[place - start : place - start + len(vector)], safetensors_dtype, lambda: _culprits(stream))


def _made(stream: SiteStream, method: Method, state: Any, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
    """The merged blocks from entry `start` to `stop`, each with its place. facts: what a survey found."""
    known = _survey(stream, method) if state is _NOT_YET else state
    for chunk in stream.chunks(start, stop):
        yield chunk.start, _combined(method, stream, known, chunk)


def _survey(stream: SiteStream, method: Method) -> Any:
    if method.prepare is None or not stream.job.settings.coefficients:
        return None
    return method.prepare(stream, stream.job.settings)


def _combined(method: Method, stream: SiteStream, state: Any, chunk: Chunk) -> np.ndarray:
    """The merged block; where no model has a weight, the origin's own."""
    settings = stream.job.settings
    return method.combine(chunk, settings, state) if settings.coefficients else chunk.origin


def assembled(
    tensor: LazyTensor, safetensors_dtype: str, streams: Sequence[SiteStream], method: Method, run: tuple[int, int]
) -> Iterator[Piece]:
    """A stretch of a tensor, the entries `run`, in which the entries of several sites take turns: put together in
    memory as a whole once its first piece is asked for, and let go of with its last one."""
    whole = _Assembly(partial(_put_together, tensor, safetensors_dtype, streams, method, run))
    start, stop = run
    for first in range(start, stop, PIECE):
        last = min(first + PIECE, stop)
        cut = slice(
            (first - start) * _dtype(safetensors_dtype).itemsize, (last - start) * _dtype(safetensors_dtype).itemsize
        )
        yield Piece(cut.stop - cut.start, partial(whole.give, cut))


class _Assembly:
    """Bytes that are made once and given away piece by piece."""

    def __init__(self, make: Callable[[], np.ndarray]) -> None:
        self._make = make
        self._made: np.ndarray | None = None
        self._given = 0
        self._lock = threading.Lock()

    def give(self, cut: slice, buffer: memoryview) -> None:
        """Fill a buffer with some of the bytes."""
        with self._lock:
            if self._made is None:
                self._made = self._make().view(np.uint8)
            buffer[:] = self._made[cut].data
            self._given += cut.stop - cut.start
            if self._given == len(self._made):
                self._made = None


def _put_together(
    tensor: LazyTensor, safetensors_dtype: str, streams: Sequence[SiteStream], method: Method, run: tuple[int, int]
) -> np.ndarray:
    start, stop = run
    result = upcast(tensor.array(start, stop))
    for stream in streams:
        pair, like = stream.job.pair, stream.alignment.like
        part = pair.parts[like]
        first, size = part.span(tensor.shape)
        vector = np.empty(stream.numel, result.dtype)
        for place, made in _made(stream, method, _NOT_YET, 0, stream.numel):
            vector[place : place + len(made)] = made
        view = part.view(result[first - start : first - start + size], tensor.shape)
        view[...] = vector.reshape(view.shape)
    stored = np.empty(len(result), _dtype(safetensors_dtype))
    _store(result, stored, safetensors_dtype, lambda: _culprits(streams[0]))
    return stored


def _store(vector: np.ndarray, out: np.ndarray, safetensors_dtype: str, culprits: Callable[[], str]) -> None:
    """Round a vector into `out`, and see that it holds numbers alone, none too large for the dtype.

    float16 and float32 are rounded by numpy, which takes what is too large for infinite; its warning would be one of
    what is refused just below.
    """
    from vlsurgery.surgery.methods.kernels import largest
    from vlsurgery.surgery.runtime.jit import round_to_bfloat16

    if out.dtype == BFLOAT16:
        most = round_to_bfloat16(vector, out)
    else:
        most = largest(vector)
        with np.errstate(over="ignore", invalid="ignore"):
            out[:] = vector
    if most <= np.float32(min(_LIMITS[safetensors_dtype], _LIMITS["F32"])).view(np.int32):
        return
    if not np.isfinite(vector).all():
        raise CheckpointError(f"{culprits()}: NaN or infinite values. Such a checkpoint is broken; get it again.")
    if float(np.abs(vector).max()) > _LIMITS[safetensors_dtype]:
        raise CheckpointError(
            f"{culprits()}: values above {_LIMITS[safetensors_dtype]:g} arise when it is merged as "
            f"{TORCH_NAMES[safetensors_dtype]}. Store the result with more room: --dtype bfloat16 or float32."
        )


def _culprits(stream: SiteStream) -> str:
    """Which of a site's tensors hold NaN or infinite values; that of `like` where they arise in the merge."""
    alignment, pair = stream.alignment, stream.job.pair
    broken = [alignment.label(pair, role) for role in stream.roles if not alignment.load(pair, role).isfinite().all()]
    return " and ".join(broken) or f"{alignment.label(pair, alignment.like)}, merged"


def _dtype(safetensors_dtype: str) -> np.dtype:
    return np.dtype(NUMPY_NAMES[safetensors_dtype])
