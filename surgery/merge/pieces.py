"""Pieces of a merged tensor: bytes that are copied, and bytes that a method computes."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np

from vlsurgery.surgery.checkpoint import NUMPY_NAMES, TORCH_NAMES, LazyTensor
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.streams import SiteStream
from vlsurgery.surgery.methods import Method
from vlsurgery.surgery.runtime.arrays import BFLOAT16, upcast
from vlsurgery.surgery.runtime.worker_pool import cores
from vlsurgery.surgery.writer import Piece

# Entries of a piece, at most.
PIECE_SIZE: Final = 1 << 21

# Entries of a site, at most, that one thread prepares and merges in a single piece.
MAX_SINGLE_PIECE_SIZE: Final = 1 << 24

# Bytes of such sites, at most, that all threads together keep in memory; a larger site is read on every pass.
MAX_RESIDENT_BYTES: Final = 192 << 20

# The largest number of each dtype that weights are stored in.
_LIMITS: Final = {
    "F16": 65504.0,
    "BF16": (2 - 2**-7) * 2.0**127,
    "F32": float(np.finfo(np.float32).max),
    "F64": float(np.finfo(np.float64).max),
}


# Floating dtype -> the unsigned integer of its size, its bits without the sign, and those of infinity.
_BITS: Final = {
    "F16": (np.uint16, 0x7FFF, 0x7C00),
    "BF16": (np.uint16, 0x7FFF, 0x7F80),
    "F32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
    "F64": (np.uint64, 0x7FFFFFFFFFFFFFFF, 0x7FF0000000000000),
}


def copied_pieces(
    tensor: LazyTensor, safetensors_dtype: str, start: int, stop: int, tell: Callable[[LazyTensor], None]
) -> Iterator[Piece]:
    """The tensor's entries `start` to `stop`, stored as `safetensors_dtype`. tell: is given the tensor for each piece
    that keeps its bytes and holds NaN or infinite values."""
    for first in range(start, stop, PIECE_SIZE):
        last = min(first + PIECE_SIZE, stop)
        if safetensors_dtype == tensor.safetensors_dtype:
            itemsize = tensor.nbytes // max(1, tensor.numel)
            yield Piece((last - first) * itemsize, partial(_copy, tensor, first * itemsize, tell))
        else:
            nbytes = (last - first) * _dtype(safetensors_dtype).itemsize
            yield Piece(nbytes, partial(_cast, tensor, safetensors_dtype, first, last))


def _copy(tensor: LazyTensor, start: int, tell: Callable[[LazyTensor], None], buffer: memoryview) -> None:
    """Fill `buffer` with the tensor's bytes from byte `start` on."""
    tensor.read_into(buffer, start)
    if tensor.is_float and len(buffer):
        unsigned, magnitude, infinity = _BITS[tensor.safetensors_dtype]
        if (np.frombuffer(buffer, unsigned) & unsigned(magnitude)).max() >= infinity:
            tell(tensor)


def _cast(tensor: LazyTensor, safetensors_dtype: str, first: int, last: int, buffer: memoryview) -> None:
    out = np.frombuffer(buffer, _dtype(safetensors_dtype))
    _round_into(
        out, upcast(tensor.array(first, last)), safetensors_dtype, lambda: f"{tensor.place}: tensor {tensor.name}"
    )


def merged_pieces(stream: SiteStream, method: Method, safetensors_dtype: str) -> Iterator[Piece]:
    """A merged site that is contiguous in its tensor. Where the method must first see the whole site, all threads
    prepare a large one together, and one thread prepares a small one within its single piece."""
    itemsize, numel = _dtype(safetensors_dtype).itemsize, stream.numel
    if method.prepare is not None and numel <= MAX_SINGLE_PIECE_SIZE:
        resident = stream.nbytes * cores() <= MAX_RESIDENT_BYTES
        alone = replace(stream, pool=None, resident=resident, kept=None if resident else stream.kept)
        yield Piece(numel * itemsize, partial(_merge_into, alone, method, safetensors_dtype, _NOT_PREPARED, 0, numel))
        return
    state = _prepare(stream, method)
    step = max(1, PIECE_SIZE // stream.chunk) * stream.chunk
    for start in range(0, numel, step):
        stop = min(start + step, numel)
        make = partial(_merge_into, stream, method, safetensors_dtype, state, start, stop)
        yield Piece((stop - start) * itemsize, make)


_NOT_PREPARED: Final = object()


def _merge_into(
    stream: SiteStream, method: Method, safetensors_dtype: str, state: Any, start: int, stop: int, buffer: memoryview
) -> None:
    """Fill a piece with the entries `start` to `stop` of the merged site."""
    out = np.frombuffer(buffer, _dtype(safetensors_dtype))
    for first, vector in _merged_chunks(stream, method, state, start, stop):
        chunk = out[first - start : first - start + len(vector)]
        _round_into(chunk, vector, safetensors_dtype, lambda: _broken(stream))


def _merged_chunks(
    stream: SiteStream, method: Method, state: Any, start: int, stop: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield each merged chunk of the entries `start` to `stop`, behind its first entry's number. state: what `prepare`
    returned. Where no model has a coefficient, a chunk is the origin's own."""
    prepared = _prepare(stream, method) if state is _NOT_PREPARED else state
    settings = stream.merge.settings
    for chunk in stream.chunks(start, stop):
        yield chunk.start, method.combine(chunk, settings, prepared) if settings.coefficients else chunk.origin


def _prepare(stream: SiteStream, method: Method) -> Any:
    if method.prepare is None or not stream.merge.settings.coefficients:
        return None
    return method.prepare(stream, stream.merge.settings)


def interleaved_pieces(
    tensor: LazyTensor, safetensors_dtype: str, streams: Sequence[SiteStream], method: Method, start: int, stop: int
) -> Iterator[Piece]:
    """The entries `start` to `stop` of a tensor, among which those of several sites alternate. They are merged as a
    whole when the first piece is made, and held in memory until the last one is."""
    run = _InterleavedRun(partial(_merge_interleaved, tensor, safetensors_dtype, streams, method, start, stop))
    itemsize = _dtype(safetensors_dtype).itemsize
    for first in range(start, stop, PIECE_SIZE):
        last = min(first + PIECE_SIZE, stop)
        span = slice((first - start) * itemsize, (last - start) * itemsize)
        yield Piece(span.stop - span.start, partial(run.copy_into, span))


class _InterleavedRun:
    """Bytes that are made once and copied piece by piece."""

    def __init__(self, make: Callable[[], np.ndarray]) -> None:
        self._make = make
        self._made: np.ndarray | None = None
        self._copied = 0
        self._lock = threading.Lock()

    def copy_into(self, span: slice, buffer: memoryview) -> None:
        """Fill a buffer with some of the bytes."""
        with self._lock:
            if self._made is None:
                self._made = self._make().view(np.uint8)
            buffer[:] = self._made[span].data
            self._copied += span.stop - span.start
            if self._copied == len(self._made):
                self._made = None


def _merge_interleaved(
    tensor: LazyTensor, safetensors_dtype: str, streams: Sequence[SiteStream], method: Method, start: int, stop: int
) -> np.ndarray:
    result = upcast(tensor.array(start, stop))
    for stream in streams:
        part = stream.merge.pair.parts[stream.alignment.like]
        first, size = part.span(tensor.shape)
        vector = np.empty(stream.numel, result.dtype)
        for begin, chunk in _merged_chunks(stream, method, _NOT_PREPARED, 0, stream.numel):
            vector[begin : begin + len(chunk)] = chunk
        view = part.view(result[first - start : first - start + size], tensor.shape)
        view[...] = vector.reshape(view.shape)
    stored = np.empty(len(result), _dtype(safetensors_dtype))
    _round_into(stored, result, safetensors_dtype, lambda: _broken(streams[0]))
    return stored


def _round_into(out: np.ndarray, vector: np.ndarray, safetensors_dtype: str, label: Callable[[], str]) -> None:
    """Round a vector into `out`. Raises CheckpointError for NaN, infinite values, and values too large for the dtype.
    label: names the tensors in the error."""
    from vlsurgery.surgery.methods.kernels import largest
    from vlsurgery.surgery.runtime.jit import round_to_bfloat16

    if out.dtype == BFLOAT16:
        most = round_to_bfloat16(vector, out)
    else:
        most = largest(vector)
        # numpy rounds what is too large to infinity and warns; it is refused below.
        with np.errstate(over="ignore", invalid="ignore"):
            out[:] = vector
    if most <= np.float32(min(_LIMITS[safetensors_dtype], _LIMITS["F32"])).view(np.int32):
        return
    if not np.isfinite(vector).all():
        raise CheckpointError(f"{label()}: NaN or infinite values. Such a checkpoint is broken; get it again.")
    if float(np.abs(vector).max()) > _LIMITS[safetensors_dtype]:
        raise CheckpointError(
            f"{label()}: values above {_LIMITS[safetensors_dtype]:g} arise when it is merged as "
            f"{TORCH_NAMES[safetensors_dtype]}. Store the result with more room: --dtype bfloat16 or float32."
        )


def _broken(stream: SiteStream) -> str:
    """Which of a site's tensors hold NaN or infinite values; that of `like` where they arise in the merge."""
    alignment, pair = stream.alignment, stream.merge.pair
    broken = [alignment.label(pair, role) for role in stream.roles if not alignment.load(pair, role).isfinite().all()]
    return " and ".join(broken) or f"{alignment.label(pair, alignment.like)}, merged"


def _dtype(safetensors_dtype: str) -> np.dtype:
    return np.dtype(NUMPY_NAMES[safetensors_dtype])
