"""The spectra of one pair: of both deltas and, to compare them with, of the base."""

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch

from vlsurgery.surgery.alignment import Aligned
from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.diff import kernels, subspaces
from vlsurgery.surgery.diff.effective_rank import estimated_rank
from vlsurgery.surgery.diff.matrices import BFloat16Matrix, InMemoryMatrix, Matrix, StreamedMatrix
from vlsurgery.surgery.diff.metrics import DELTAS, deltas_of
from vlsurgery.surgery.diff.norm_bounds import NUM_TEST_VECTORS
from vlsurgery.surgery.diff.reader import FLOAT32, PairReader
from vlsurgery.surgery.diff.spectrum import (
    NUM_SINGULAR_VALUES,
    OVERSAMPLING,
    Spectrum,
    is_small,
    leading_directions,
    spectrum,
)
from vlsurgery.surgery.diff.subspaces import NUM_COMPARED, Subspaces
from vlsurgery.surgery.results import Sides
from vlsurgery.surgery.runtime.arrays import BFLOAT16

MIN_ENERGY: Final = 1e-30  # squared norm below which products of float32 underflow
DIGITS: Final = 8  # significant ones that singular values are reported with
ENERGY_RANKS: Final = (1, 8, 64)  # numbers of leading singular values whose share of the energy is reported


def without_spectrum(shape: Shape) -> str | None:
    """Why a pair of this shape has no spectrum; None where it has one."""
    if len(shape) == 2 and min(shape) > 1:
        return None
    return "a stack of matrices, not one" if len(shape) > 2 else "a vector, not a matrix"


def directions_bytes(shape: Shape) -> int:
    """Memory that the singular directions of a pair's spectra take."""
    return 4 * sum(shape) * (4 * (NUM_SINGULAR_VALUES + OVERSAMPLING) + 2 * NUM_TEST_VECTORS)


def pair_spectra(
    pair: Aligned, matrices: Iterable[tuple[str, Matrix]], energies: Mapping[str, float] = MappingProxyType({})
) -> dict[str, dict[str, Any]]:
    """What the spectra of a pair's deltas tell ("vl", "safety"), and how they relate ("between"), by metric.

    matrices: the tensor that the first delta starts from ("start"), then each delta by its name; each is no longer
    needed when the next one is asked for. energies: their squared norms, as far as they are known.
    """
    site, keep = pair.site, subspaces.base_rank(pair.shape)
    spectra: dict[str, Spectrum | None] = {}
    result: dict[str, dict[str, Any]] = {}
    base: Subspaces | None = None
    for name, matrix in matrices:
        energy = energies[name] if name in energies else _energy(matrix)
        if name == "start":
            base = None if energy < MIN_ENERGY else Subspaces(*leading_directions(matrix, _seed(site, name), keep))
            continue
        spectra[name] = None if energy < MIN_ENERGY else spectrum(matrix, energy, _seed(site, DELTAS[name][1]))
        result[name] = _delta_metrics(matrix, spectra[name], base)
    if len(spectra) == 2:
        result["between"] = _between_metrics(spectra["vl"], spectra["safety"])
    return result


def read_matrices(reader: PairReader, in_memory: bool) -> Iterator[tuple[str, Matrix]]:
    """The matrices of a pair by name, one at a time: in memory, in float32, or else read again for every pass."""
    start = next(iter(reader.roles))
    wanted: list[tuple[str, str, str | None]] = [("start", start, None)]
    wanted += [(delta, after, before) for delta, (before, after) in deltas_of(reader.roles).items()]
    rows, columns = reader.pair.shape
    for name, after, before in wanted:
        if in_memory:
            yield name, InMemoryMatrix(torch.from_numpy(reader.load(after, before)).view(rows, columns))
        else:
            yield name, StreamedMatrix(reader, after, before)


def loaded_matrices(entries: Mapping[str, np.ndarray], shape: Shape) -> Iterator[tuple[str, Matrix]]:
    """The matrices of a pair by name, from their entries in float32, or in bfloat16 by its bits."""
    rows, columns = shape
    for name, vector in entries.items():
        kind = BFloat16Matrix if vector.dtype == BFLOAT16 else InMemoryMatrix
        yield name, kind(torch.from_numpy(vector).view(rows, columns))


def start_dtype(stored: np.dtype, shape: Shape) -> np.dtype:
    """The dtype in memory of the tensor that the first delta starts from: bfloat16 if it is stored so and is too large
    to be decomposed exactly, else float32."""
    return BFLOAT16 if stored == BFLOAT16 and not is_small(shape) else FLOAT32


def _energy(matrix: Matrix) -> float:
    return math.fsum(kernels.squares(chunk.reshape(-1).numpy()) for _, chunk in matrix.chunks())


def _seed(site: Site, role: str) -> int:
    """The seed of random directions, which depends on the site alone, so that a pair can be measured by itself."""
    return zlib.crc32(f"{site.key}/{role}".encode())


def _delta_metrics(matrix: Matrix, found: Spectrum | None, base: Subspaces | None) -> dict[str, Any]:
    if found is None:
        return {"why": {"singular_values": "the delta is 0, or too small for float32"}}
    values = found.reported.tolist()
    left_over = found.energy - float(found.values.square().sum())
    rank = estimated_rank(found.values, left_over, found.remainder, min(found.shape) - len(found.values))
    metrics: dict[str, Any] = {
        "singular_values": [float(f"{value:.{DIGITS}g}") for value in values],
        "singular_values_error": found.error + 0.5 * 10.0 ** (1 - DIGITS) * values[0],
        "stable_rank": found.energy / values[0] ** 2,
        "effective_rank": rank.value,
        "effective_rank_low": rank.low,
        "effective_rank_high": rank.high,
        "energy": {str(k): min(1.0, sum(value**2 for value in values[:k]) / found.energy) for k in ENERGY_RANKS},
    }
    if base is None:
        return metrics | {"why": dict.fromkeys(("base_overlap", "intruder_share"), "what it started from is 0")}
    return metrics | {
        "base_overlap": subspaces.base_overlap(matrix, found.energy, base),
        "base_overlap_null": subspaces.overlap_null(base),
        "intruder_share": subspaces.intruder_share(found, base),
        "intruder_share_null": subspaces.intruder_share_null(base),
    }


def _between_metrics(first: Spectrum | None, second: Spectrum | None) -> dict[str, Any]:
    """How the leading directions of the two deltas lie to each other."""
    if first is None or second is None:
        reason = "a delta is 0, or too small for float32"
        return {"why": dict.fromkeys(("subspace_left", "subspace_right"), reason)}
    left = (first.left[:, :NUM_COMPARED], second.left[:, :NUM_COMPARED])
    right = (first.right[:, :NUM_COMPARED], second.right[:, :NUM_COMPARED])
    return {
        "subspace_left": subspaces.overlap(*left),
        "subspace_right": subspaces.overlap(*right),
        "subspace_null": Sides(left=subspaces.random_overlap(*left), right=subspaces.random_overlap(*right)),
    }
