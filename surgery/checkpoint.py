"""A checkpoint on disk as a read-only mapping of lazy tensors: opening one reads headers, never weights.

Imports torch only where bytes become tensors, so that looking at what a checkpoint holds stays instant.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from surgery.errors import CheckpointError
from surgery.headers import Header, read_header
from surgery.layout import find_shards, read_json
from surgery.quantised import quantisation
from surgery.results import CheckpointRef

if TYPE_CHECKING:
    import torch

# The format's dtype names, as attributes of torch. Codes that are missing here only occur in quantised weights.
TORCH_NAMES: Final = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
    "C64": "complex64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
FLOATS: Final = frozenset({"F16", "BF16", "F32", "F64"})

WEIGHT_ENDINGS: Final = (
    ".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".gguf", ".h5",
    ".msgpack", ".onnx",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LazyTensor:
    """A tensor that stays on disk until asked for.

    code: dtype by the format's own name ("BF16"). offset: of its first byte in the file `shard`.
    """

    name: str
    shape: tuple[int, ...]
    code: str
    shard: Path
    offset: int
    nbytes: int

    @property
    def dtype(self) -> "torch.dtype":
        import torch

        if self.code not in TORCH_NAMES:
            raise CheckpointError(f"{self.shard}: tensor {self.name}: torch has no dtype {self.code}.")
        dtype = getattr(torch, TORCH_NAMES[self.code])
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def dtype_name(self) -> str:
        """The dtype as people write it ("bfloat16"); the format's own name where torch has none."""
        return TORCH_NAMES.get(self.code, self.code)

    @property
    def is_float(self) -> bool:
        """Whether entries are plain floating-point weights that can be compared and combined."""
        return self.code in FLOATS

    @property
    def numel(self) -> int:
        count = 1
        for extent in self.shape:
            count *= extent
        return count

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

    def read_into(self, buffer: memoryview, start: int = 0) -> None:
        """Fill `buffer` with the tensor's bytes from byte `start` on. Raises CheckpointError when they are gone."""
        if start < 0 or start + len(buffer) > self.nbytes:
            raise ValueError(f"{self.name}: bytes {start} to {start + len(buffer)} of {self.nbytes}")
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
            raise CheckpointError(f"{self.shard}: tensor {self.name}: {error.strerror or error}.") from error
        if done < len(buffer):
            raise CheckpointError(
                f"{self.shard}: ended in the middle of tensor {self.name}: the file changed after it was opened."
            )


class Checkpoint(Mapping[str, LazyTensor]):
    """A model on disk: tensor name -> LazyTensor, in file order, with its config.

    ref: the checkpoint as the user named it. path: its directory. config: config.json. shards: file name -> header.
    identity: "sha256:..." over, per shard, file name, size, modification time and the SHA-256 of its header. It
        changes whenever weights were written again; equal identities mean that nobody touched the files.
    quantised: the scheme, when the weights are quantised, else None. Such weights can be listed, not combined.
    """

    def __init__(self, ref: str, path: Path, config: dict[str, Any], shards: dict[str, Header]) -> None:
        self.ref = ref
        self.path = path
        self.config = config
        self.shards = shards
        self._tensors: dict[str, LazyTensor] = {}
        for file, header in shards.items():
            shard = path / file
            for entry in header.entries:
                if entry.name in self._tensors:
                    raise CheckpointError(
                        f"{path}: tensor {entry.name!r} is in both {self._tensors[entry.name].shard.name} and {file}. "
                        "Remove the shard that does not belong to this checkpoint."
                    )
                self._tensors[entry.name] = LazyTensor(
                    entry.name, entry.shape, entry.code, shard, entry.offset, entry.nbytes
                )

    @classmethod
    def open(cls, ref: str | Path) -> Self:
        """Read config and headers of the directory `ref`.

        Raises CheckpointError that names the file and the next step: not a checkpoint, no safetensors, pickled
        weights, an index that names what is not there, a truncated or corrupt shard.
        """
        path = Path(ref).expanduser()
        files = find_shards(path)
        config = read_json(path / "config.json")
        shards = {file: read_header(path / file) for file in files.shards}
        checkpoint = cls(str(ref), path, config, shards)
        for name, file in files.weight_map.items():
            held = checkpoint.get(name)
            if held is None or held.shard != path / file:
                raise CheckpointError(
                    f"{path}: model.safetensors.index.json places tensor {name!r} in {file}, which does not hold it. "
                    "Download index and shards again."
                )
        if not checkpoint:
            raise CheckpointError(f"{path}: its weight files hold no tensors.")
        return checkpoint

    def __getitem__(self, name: str) -> LazyTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Checkpoint({self.ref!r}, {len(self)} tensors)"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape: what `anatomy.identify` needs."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    @cached_property
    def identity(self) -> str:
        digest = hashlib.sha256()
        for file, header in sorted(self.shards.items()):
            digest.update(json.dumps([file, header.size, header.mtime_ns, header.digest]).encode())
        return f"sha256:{digest.hexdigest()}"

    @property
    def ref_model(self) -> CheckpointRef:
        """What results and recipes remember of this checkpoint; the path is absolute, so it outlives a `cd`."""
        return CheckpointRef(path=os.path.abspath(self.path), identity=self.identity)

    @cached_property
    def quantised(self) -> str | None:
        return quantisation({name: tensor.code for name, tensor in self._tensors.items()}, self.config)

    @cached_property
    def extra_files(self) -> list[Path]:
        """Every file that holds no weights (config, tokenizer, processor, chat template, ...), to be copied as it is.

        Hidden directories, such as a downloader's cache, are left out. Raises CheckpointError for a broken link.
        """
        found = []
        for folder, folders, files in os.walk(self.path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            found += [Path(folder) / name for name in sorted(files) if not name.endswith(WEIGHT_ENDINGS)]
        for file in found:
            if not file.exists():
                raise CheckpointError(f"{file}: a link to nothing. Download the checkpoint again.")
        return found
