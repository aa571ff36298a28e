"""The spectra of one pair: of both deltas and, to compare them with, of the base."""

import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import torch
from torch import Tensor

from surgery.anatomy import Site
from surgery.measuring import kernels, subspaces
from surgery.measuring.findings import DELTAS, PairSpectra
from surgery.measuring.ranks import EffectiveRank, effective_rank, estimated_rank
from surgery.measuring.spectrum import KEPT, PROBES, SPARE, Held, Matrix, Spectrum, leading_directions, spectrum
from surgery.measuring.stretches import STRETCH, Source
from surgery.measuring.subspaces import LEADING, Subspaces
from surgery.results import Sides
from surgery.vectors import to_exact

FAINT: Final = 1e-30  # squared norm below which products of float32 begin to vanish
DIGITS: Final = 8
SHARES: Final = (1, 8, 64)


class Streamed:
    """A matrix that is read from its files for every pass: a role, or the difference of two."""

    def __init__(self, source: Source, after: str, before: str | None = None) -> None:
        self.source, self.after, self.before = source, after, before
        self._rows = max(1, STRETCH // self.shape[1])
        self._kept = torch.empty(2 if before else 1, self._rows, self.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.source.pair.shape
        return rows, columns

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        rows, columns = self.shape
        roles = [self.after] if self.before is None else [self.after, self.before]
        for row in range(0, rows, self._rows):
            stop = min(row + self._rows, rows)
            found = self.source.read(row * columns, stop * columns, roles)
            kept = self._kept[:, : stop - row]
            for role, rows_of in zip(roles, kept, strict=True):
                to_exact(found[role], rows_of.view(-1).numpy())
            if self.before is not None:
                kept[0].sub_(kept[1])
            yield row, kept[0]


def without_spectrum(shape: tuple[int, ...]) -> str | None:
    """Why a pair of this shape has no spectrum; None where it has one."""
    if len(shape) == 2 and min(shape) > 1:
        return None
    return "a stack of matrices, not one" if len(shape) > 2 else "a vector, not a matrix"


def directions_bytes(shape: tuple[int, ...]) -> int:
    """What the directions of a pair's spectra take in memory."""
    return 4 * sum(shape) * (4 * (KEPT + SPARE) + 2 * PROBES)


def pair_spectra(source: Source, words: Mapping[str, str], held: bool) -> PairSpectra:
    """The spectra of a pair that is a matrix. words: base, adapted and safety, where the pair has them -> the names
    that `source` knows them by. held: whether its tensors are held in memory, or else read again for every pass."""
    site, shape = source.pair.site, source.pair.shape
    matrices = _held(source, words) if held else _streamed(source, words)
    keep = subspaces.base_rank(shape)
    found: dict[str, Spectrum | None] = {}
    result = PairSpectra()
    base: Subspaces | None = None
    for word, matrix in matrices:
        energy = _energy(matrix)
        if word == "start":
            base = None if energy < FAINT else Subspaces(*leading_directions(matrix, _seed(site, word), keep))
            continue
        found[word] = None if energy < FAINT else spectrum(matrix, energy, _seed(site, word))
        result.deltas[word] = _delta_metrics(matrix, found[word], base)
    if len(found) == 2:
        result.between = _between_metrics(found["adapted"], found["safety"])
    return result


def _held(source: Source, words: Mapping[str, str]) -> Iterator[tuple[str, Matrix]]:
    """The tensor that the first delta starts from ("start"), then each delta by the role that it ends in. Each is
    made in the memory of what is not needed any more."""
    shape = source.pair.shape
    loaded = {word: torch.from_numpy(source.load(role)).view(shape) for word, role in words.items()}
    yield "start", Held(loaded.get("base", loaded["adapted"]))
    if "base" in loaded:
        yield "adapted", Held(torch.sub(loaded["adapted"], loaded["base"], out=loaded.pop("base")))
    if "safety" in loaded:
        yield "safety", Held(loaded["safety"].sub_(loaded["adapted"]))


def _streamed(source: Source, words: Mapping[str, str]) -> Iterator[tuple[str, Matrix]]:
    """As `_held`."""
    yield "start", Streamed(source, words.get("base", words["adapted"]))
    for after, before in DELTAS.items():
        if after in words and before in words:
            yield after, Streamed(source, words[after], words[before])


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
        return metrics | {"why": dict.fromkeys(("base_overlap", "foreign"), "what it started from is 0")}
    return metrics | {
        "base_overlap": subspaces.base_overlap(matrix, found.energy, base),
        "base_overlap_null": subspaces.overlap_null(base),
        "foreign": subspaces.foreign(found, base),
        "foreign_null": subspaces.foreign_null(base),
    }


def _effective_rank(found: Spectrum) -> EffectiveRank:
    if found.exact:
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
