"""The work of a conversion's worker: it opens the GGUF file by itself, and writes one shard after another."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import torch

from vlsurgery.probes.models.gguf.layout import Layout, laid_out
from vlsurgery.probes.models.gguf.source import GGUFHeader, GGUFModel, Unit, open_gguf
from vlsurgery.surgery.checkpoint import LazyTensor
from vlsurgery.surgery.errors import CheckpointError, SurgeryError, TargetError
from vlsurgery.surgery.runtime.worker_pool import worker_pool
from vlsurgery.surgery.writer import Piece
from vlsurgery.surgery.writer.filling import FilledShard, write_shard
from vlsurgery.surgery.writer.journal import JOURNAL

PROGRAMS: Final = ("transformers", "gguf")
# Entries that are dequantised at a time where rows can be made one by one, and that are rounded at a time.
PIECE_SIZE: Final = 1 << 22
ROUNDED_SIZE: Final = 1 << 20


def stamp_of(file: Path) -> tuple[int, int]:
    """A file's size and modification time. Raises CheckpointError where it can't be read any more."""
    try:
        found = file.stat()
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror}). Give a .gguf file.") from error
    return found.st_size, found.st_mtime_ns


def check_stamp(file: Path, stamp: tuple[int, int]) -> None:
    """Raise CheckpointError where a file is not the one of that size and modification time any more."""
    if stamp_of(file) != stamp:
        raise CheckpointError(
            f"{file}: was written to while it was being converted. Convert again once nothing writes to it."
        )


def converters() -> str:
    """ "transformers 5.6.0, gguf 0.17.0", as they are installed here: what is written depends on them."""
    return ", ".join(f"{name} {version(name)}" for name in PROGRAMS)


@dataclass(frozen=True)
class GGUFShardMaker:
    """Called once in a worker's process, it returns the function that makes and writes one shard of a checkpoint.

    folder: where the checkpoint is written until it is complete. stamp: of the file, as the program saw it; header:
    what it found there. programs: that it has.
    """

    file: Path
    header: GGUFHeader
    dtype: str
    max_shard_bytes: int
    stamp: tuple[int, int]
    programs: str
    folder: Path

    def __call__(self) -> Callable[[str], Iterator[FilledShard]]:
        """Raises as `open_gguf`, and where this process sees another file, no folder or other programs."""
        if converters() != self.programs:
            raise SurgeryError(
                f"a Ray worker has {converters()}, and the program {self.programs}: results could differ. Install the "
                "same versions on all machines."
            )
        if not (self.folder / JOURNAL).is_file():
            raise TargetError(f"{self.folder}: is not there for a worker. Give a directory that all machines share.")
        check_stamp(self.file, self.stamp)
        model = open_gguf(self.file, self.header)
        layout = laid_out(model, self.dtype, self.max_shard_bytes)
        return partial(made_shard, model, layout, self.dtype, self.folder)


def made_shard(model: GGUFModel, layout: Layout, dtype: str, folder: Path, file: str) -> Iterator[FilledShard]:
    """Make the shard of that name and write it to the folder."""
    (shard,) = (each for each in layout.shards if each.file == file)
    pieces = UnitPieces(model, layout.units, dtype)
    with worker_pool() as pool:
        filled = write_shard(shard, folder, pieces.of, pool, ())
    yield replace(filled, sums=pieces.sums())


@dataclass(frozen=True)
class UnitPieces:
    """Cuts units into pieces that can each be made alone, in any thread: rows where that is possible, else a whole.

    errors: (parameter, number of the piece) -> sums of squares of what rounding changed and of the weights; filled as
    pieces are made.
    """

    model: GGUFModel
    units: dict[str, Unit]
    dtype: str
    errors: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)

    def of(self, tensor: LazyTensor) -> Iterator[Piece]:
        """The pieces of a unit in order. tensor: stands for it."""
        unit = self.units[tensor.name]
        rows, whole = self.model.rows(unit), lambda: self.model.make(unit)
        if rows is None:
            yield Piece(tensor.nbytes, partial(self._fill, unit, 0, whole))
            return
        each = max(1, PIECE_SIZE * rows // max(1, tensor.numel))
        for number, start in enumerate(range(0, rows, each)):
            stop = min(start + each, rows)
            make = partial(self._rows, unit, start, stop)
            yield Piece(tensor.nbytes // rows * (stop - start), partial(self._fill, unit, number, make))

    def sums(self) -> tuple[float, float]:
        """Sums of squares over all pieces, which don't depend on their order: of rounding errors, and of weights."""
        return math.fsum(lost for lost, _ in self.errors.values()), math.fsum(all_ for _, all_ in self.errors.values())

    def _rows(self, unit: Unit, start: int, stop: int) -> Sequence[np.ndarray]:
        return [self.model.make_rows(unit, start, stop)]

    def _fill(self, unit: Unit, number: int, make: Callable[[], Sequence[np.ndarray]], view: memoryview) -> None:
        dtype, done, lost, whole = getattr(torch, self.dtype), 0, 0.0, 0.0
        for (name, _), entries in zip(unit.tensors, (each.reshape(-1) for each in make()), strict=True):
            for start in range(0, len(entries), ROUNDED_SIZE):
                part = torch.from_numpy(entries[start : start + ROUNDED_SIZE])
                rounded = part.to(dtype)
                stored = rounded.view(torch.uint8).numpy().data
                view[done : done + len(stored)] = stored
                done += len(stored)
                exact = part.numpy().astype(np.float64)
                with np.errstate(invalid="ignore"):  # of infinite values, which are refused below
                    lost += float(np.square(rounded.double().numpy() - exact).sum())
                whole += float(np.square(exact).sum())
            self._check_finite(name, lost, whole)
        self.errors[unit.parameter, number] = lost, whole

    def _check_finite(self, name: str, lost: float, whole: float) -> None:
        if not math.isfinite(whole):
            raise CheckpointError(
                f"{self.model.file}: tensor {name}: NaN or infinite values. The file is broken: download it again."
            )
        if not math.isfinite(lost):
            raise CheckpointError(
                f"{self.model.file}: tensor {name}: values too large for {self.dtype}. Give --dtype bfloat16 or "
                "float32."
            )
