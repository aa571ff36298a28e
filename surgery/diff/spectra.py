"""The spectra of one pair: of both deltas and, to compare them with, of the base."""

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from vlsurgery.surgery.alignment import Aligned
from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.diff import kernels, subspaces
from vlsurgery.surgery.diff.effective_rank import EffectiveRank, effective_rank, estimated_rank
from vlsurgery.surgery.diff.norm_bounds import PROBES
from vlsurgery.surgery.diff.pair_spectra import DELTAS, PairSpectra
from vlsurgery.surgery.diff.reader import FLOAT32, STRETCH, Gathered, PairReader
from vlsurgery.surgery.diff.spectrum import (
    KEPT,
    SPARE,
    Held,
    Matrix,
    Spectrum,
    Stored,
    is_small,
    leading_directions,
    spectrum,
)
from vlsurgery.surgery.diff.subspaces import LEADING, Subspaces
from vlsurgery.surgery.results import Sides
from vlsurgery.surgery.runtime.arrays import BFLOAT16

FAINT: Final = 1e-30  # squared norm below which products of float32 begin to vanish
DIGITS: Final = 8
SHARES: Final = (1, 8, 64)


class Streamed:
    """A matrix that is read from its files for every pass: a role, or the difference of two."""

    def __init__(self, source: PairReader, after: str, before: str | None = None) -> None:
        self.source, self.after, self.before = source, after, before
        self._rows = max(1, STRETCH // self.shape[1])
        self._kept = torch.empty(self._rows, self.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.source.pair.shape
        return rows, columns

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        rows, columns = self.shape
        for row in range(0, rows, self._rows):
            stop = min(row + self._rows, rows)
            chunk = self._kept[: stop - row]
            self.source.fill(row * columns, stop * columns, chunk.view(-1).numpy(), self.after, self.before)
            yield row, chunk


def without_spectrum(shape: Shape) -> str | None:
    """Why a pair of this shape has no spectrum; None where it has one."""
    if len(shape) == 2 and min(shape) > 1:
        return None
    return "a stack of matrices, not one" if len(shape) > 2 else "a vector, not a matrix"


def directions_bytes(shape: Shape) -> int:
    """What the directions of a pair's spectra take in memory."""
    return 4 * sum(shape) * (4 * (KEPT + SPARE) + 2 * PROBES)


def pair_spectra(
    pair: Aligned, matrices: Iterable[tuple[str, Matrix]], energies: Mapping[str, float] = MappingProxyType({})
) -> PairSpectra:
    """The spectra of a pair that is a matrix. matrices: the tensor that the first delta starts from ("start"), then
    each delta by the role that it ends in; each is done with when the next one is asked for. energies: their squared
    norms, where they are known, as `Tally` has them."""
    site, keep = pair.site, subspaces.base_rank(pair.shape)
    found: dict[str, Spectrum | None] = {}
    result = PairSpectra()
    base: Subspaces | None = None
    for word, matrix in matrices:
        energy = energies[word] if word in energies else _energy(matrix)
        if word == "start":
            base = None if energy < FAINT else Subspaces(*leading_directions(matrix, _seed(site, word), keep))
            continue
        found[word] = None if energy < FAINT else spectrum(matrix, energy, _seed(site, word))
        result.deltas[word] = _delta_metrics(matrix, found[word], base)
    if len(found) == 2:
        result.between = _between_metrics(found["adapted"], found["safety"])
    return result


def read_matrices(source: PairReader, words: Mapping[str, str], held: bool) -> Iterator[tuple[str, Matrix]]:
    """The matrices of a pair, each read by itself. words: base, adapted and safety, where the pair has them -> the
    names that `source` knows them by. held: whether one at a time is held in memory, in float32, or else made again of
    what is read for every pass."""
    wanted: list[tuple[str, str, str | None]] = [("start", words.get("base", words["adapted"]), None)]
    wanted += [(word, words[word], words[start]) for word, start in DELTAS.items() if {word, start} <= words.keys()]
    rows, columns = source.pair.shape
    for word, after, before in wanted:
        if held:
            yield word, Held(torch.from_numpy(source.load(after, before)).view(rows, columns))
        else:
            yield word, Streamed(source, after, before)


def gathered_matrices(gathered: Gathered, shape: Shape) -> Iterator[tuple[str, Matrix]]:
    """The matrices of a pair that were put together while it was summed up."""
    rows, columns = shape
    narrow = gathered.start.dtype == BFLOAT16
    yield "start", (Stored if narrow else Held)(torch.from_numpy(gathered.start).view(rows, columns))
    for role, delta in gathered.deltas.items():
        yield role, Held(torch.from_numpy(delta).view(rows, columns))


def start_dtype(stored: np.dtype, shape: Shape) -> np.dtype:
    """What the tensor that the first delta starts from is gathered in: as it is stored where that is bfloat16, and
    where it is too large to be decomposed exactly."""
    return BFLOAT16 if stored == BFLOAT16 and not is_small(shape) else FLOAT32


def _energy(matrix: Matrix) -> float:
    return math.fsum(kernels.squares(chunk.reshape(-1).numpy()) for _, chunk in matrix.chunks())


def _seed(site: Site, word: str) -> int:
    """Random directions depend on the site alone, so that a pair can be measured again by itself."""
    return zlib.crc32(f"{site.key}/{word}".encode())


def _delta_metrics(matrix: Matrix, found: Spectrum | None, base: Subspaces | None) -> dict[str, Any]:
    if found is None:
        return {"why": {"singular_values": "the delta is 0, or too small for float32"}}
    values = found.reported.tolist()
    rank = _effective_rank(found)
    metrics: dict[str, Any] = {
        "singular_values": [float(f"{value:.{DIGITS}g}") for value in values],
        "singular_values_error": found.error + 0.5 * 10.0 ** (1 - DIGITS) * values[0],
        "stable_rank": found.energy / values[0] ** 2,
        "effective_rank": rank.value,
        "effective_rank_low": rank.low,
        "effective_rank_high": rank.high,
        "energy": {str(k): min(1.0, sum(value**2 for value in values[:k]) / found.energy) for k in SHARES},
    }
    if base is None:
        return metrics | {"why": dict.fromkeys(("base_overlap", "intruder_share"), "what it started from is 0")}
    return metrics | {
        "base_overlap": subspaces.base_overlap(matrix, found.energy, base),
        "base_overlap_null": subspaces.overlap_null(base),
        "intruder_share": subspaces.intruder_share(found, base),
        "intruder_share_null": subspaces.intruder_share_null(base),
    }


def _effective_rank(found: Spectrum) -> EffectiveRank:
    if found.is_exact:
        rank = effective_rank(found.values)
        return EffectiveRank(rank, rank, rank)
    left_over = found.energy - float(found.values.square().sum())
    return estimated_rank(found.values, left_over, found.remainder, min(found.shape) - len(found.values))


def _between_metrics(first: Spectrum | None, second: Spectrum | None) -> dict[str, Any]:
    """How the leading directions of the two deltas lie to each other."""
    if first is None or second is None:
        reason = "a delta is 0, or too small for float32"
        return {"why": dict.fromkeys(("subspace_left", "subspace_right"), reason)}
    left = (first.left[:, :LEADING], second.left[:, :LEADING])
    right = (first.right[:, :LEADING], second.right[:, :LEADING])
    return {
        "subspace_left": subspaces.overlap(*left),
        "subspace_right": subspaces.overlap(*right),
        "subspace_null": Sides(left=subspaces.random_overlap(*left), right=subspaces.random_overlap(*right)),
    }
