"""Tensors that stay on disk until they are read. Imports torch and numpy only to read one."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vlsurgery.surgery.checkpoint.headers import Entry
from vlsurgery.surgery.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np
    import torch

# dtype in safetensors -> in torch. Those that are missing here occur in quantised weights alone.
TORCH_NAMES: Final = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
# Floating dtype in safetensors -> in numpy, which has no bfloat16 and reads its bits.
NUMPY_NAMES: Final = {"F16": "float16", "BF16": "uint16", "F32": "float32", "F64": "float64"}
FLOATS: Final = frozenset(NUMPY_NAMES)

# Entries of two tensors that are compared at a time.
COMPARED_ENTRIES: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor that stays on disk until it is read.

    entry: its name, shape, dtype and place in the file `shard`. A subclass may get its bytes elsewhere; `shard` is then
    the file that errors name.
    """

    entry: Entry
    shard: Path

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def place(self) -> str:
        """The file that errors name."""
        return str(self.shard)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape

    @property
    def safetensors_dtype(self) -> str:
        """Its dtype by its name in safetensors ("BF16")."""
        return self.entry.safetensors_dtype

    @property
    def offset(self) -> int:
        """Position of its first byte in `shard`."""
        return self.entry.offset

    @property
    def nbytes(self) -> int:
        return self.entry.nbytes

    @property
    def dtype(self) -> "torch.dtype":
        import torch

        if self.safetensors_dtype not in TORCH_NAMES:
            raise CheckpointError(f"{self.place}: tensor {self.name}: torch has no dtype {self.safetensors_dtype}.")
        dtype = getattr(torch, TORCH_NAMES[self.safetensors_dtype])
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def dtype_name(self) -> str:
        """The dtype by its name in torch ("bfloat16"); in safetensors where torch has none."""
        return TORCH_NAMES.get(self.safetensors_dtype, self.safetensors_dtype)

    @property
    def is_float(self) -> bool:
        """Whether entries are plain floating-point weights that can be compared and combined."""
        return self.safetensors_dtype in FLOATS

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    def load(self) -> "torch.Tensor":
        """The whole tensor, in memory of its own (no page of the file stays mapped)."""
        return self.read(0, self.numel).reshape(self.shape)

    def read(self, start: int, stop: int) -> "torch.Tensor":
        """Entries `start` to `stop` in row-major order, as a vector in memory of its own."""
        import torch

        itemsize = self.dtype.itemsize
        buffer = torch.empty((stop - start) * itemsize, dtype=torch.uint8)
        self.read_into(buffer.numpy().data, start * itemsize)
        return buffer.view(self.dtype)

    @property
    def array_dtype(self) -> "np.dtype":
        """The dtype of `array`, of a tensor that `is_float`."""
        import numpy as np

        return np.dtype(NUMPY_NAMES[self.safetensors_dtype])

    def array(self, start: int, stop: int, out: "np.ndarray | None" = None) -> "np.ndarray":
        """Entries as `read` gives them, in numpy: bfloat16 by its bits, as uint16. out: a vector of that dtype and
        length to fill."""
        import numpy as np

        found: np.ndarray = np.empty(stop - start, self.array_dtype) if out is None else out
        self.read_into(found.view(np.uint8).data, start * found.itemsize)
        return found

    def read_into(self, buffer: memoryview, start: int = 0) -> None:
        """Fill `buffer` with the tensor's bytes from byte `start` on. Raises CheckpointError when they are gone."""
        self._check_range(start, len(buffer))
        done = 0
        try:
            with self.shard.open("rb", buffering=0) as file:
                file.seek(self.offset + start)
                while done < len(buffer):
                    got = file.readinto(buffer[done:])
                    if not got:
                        break
                    done += got
        except OSError as error:
            raise CheckpointError(f"{self.place}: tensor {self.name}: {error.strerror or error}.") from error
        if done < len(buffer):
            raise CheckpointError(
                f"{self.place}: ended in the middle of tensor {self.name}: the file changed after it was opened."
            )

    def _check_range(self, start: int, length: int) -> None:
        if start < 0 or start + length > self.nbytes:
            raise ValueError(f"{self.name}: bytes {start} to {start + length} of {self.nbytes}")


def same_entries(first: LazyTensor, second: LazyTensor) -> bool:
    """Whether two tensors have the same shape, dtype and entries; reads them up to the first range that differs."""
    if (first.shape, first.safetensors_dtype) != (second.shape, second.safetensors_dtype):
        return False
    starts = range(0, first.numel, COMPARED_ENTRIES)
    ranges = [(start, min(start + COMPARED_ENTRIES, first.numel)) for start in starts]
    return all(first.read(*entries).equal(second.read(*entries)) for entries in ranges)


class ComputedTensor(LazyTensor):
    """A tensor whose entries are computed, by a subclass's `compute`."""

    __slots__ = ()

    def compute(self, start: int, stop: int) -> "torch.Tensor":
        """Entries `start` to `stop` in row-major order, as a vector in memory of its own."""
        raise NotImplementedError

    def read(self, start: int, stop: int) -> "torch.Tensor":
        """Entries `start` to `stop` in row-major order, as a vector in memory of its own."""
        return self.compute(start, stop)

    def read_into(self, buffer: memoryview, start: int = 0) -> None:
        """Fill `buffer` with the tensor's bytes from byte `start` on."""
        import torch

        self._check_range(start, len(buffer))
        itemsize = self.dtype.itemsize
        first, last = start // itemsize, -(-(start + len(buffer)) // itemsize)
        data = self.compute(first, last).contiguous().view(torch.uint8).numpy().data
        buffer[:] = data[start - first * itemsize :][: len(buffer)]


class ListedTensor(LazyTensor):
    """A tensor of which only the header was fetched; reading it raises."""

    __slots__ = ()

    def read_into(self, buffer: memoryview, start: int = 0) -> None:  # noqa: ARG002
        """Raises CheckpointError that says how to get the weights."""
        raise CheckpointError(
            f"{self.place}: tensor {self.name} was only listed: its checkpoint was opened for its headers alone. "
            "Open it without headers_only to download the weights."
        )
