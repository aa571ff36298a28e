"""Sums over the entries of a pair's two or three tensors, in float64, range by range."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import numpy as np

from vlsurgery.surgery.diff import kernels
from vlsurgery.surgery.diff.metrics import BetweenSums, DeltaSums, PairStatistics, deltas_of
from vlsurgery.surgery.diff.rounding_noise import EXPONENTS, MAX_UNSAMPLED, STRIDE, independent_sums
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.arrays import upcast

NO_OUTPUT: Final = np.empty(0, np.float32)


class Accumulator:
    """The sums of one pair, or of a range of its entries; `join` adds those of another range.

    entries: of the whole pair. roles: which of base, adapted and safety it has. parts: number of heads or experts.
    row: entries of a row where every part is a range of columns; 0 where it is a range of rows.
    """

    def __init__(self, entries: int, roles: Iterable[str], parts: int = 1, row: int = 0) -> None:
        self.entries, self.parts, self.row = entries, parts, row
        self.deltas = deltas_of(roles)
        self._counts = [0] * parts
        # Per delta, as `kernels.add_delta` has them.
        self._squares = {delta: np.zeros((parts, 3)) for delta in self.deltas}
        self._others = {delta: np.zeros(3) for delta in self.deltas}
        # The sums of `kernels.cross` and the sample's sum of (d1 d2)^2; the sample's bins.
        self._cross, self._bins = np.zeros(5), np.zeros((7, EXPONENTS))

    def add(
        self,
        chunk: Mapping[str, np.ndarray],
        names: Mapping[str, str],
        part: int = 0,
        outputs: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> None:
        """Add vectors of one length, role -> entries as they are stored.

        names: role -> what an error calls the tensor. part: where parts are ranges of rows, the part of the first
        entry; the chunk may go on into further parts if it begins with a part's first entry. outputs: delta -> float32
        vector that the delta is written to.

        Raises CheckpointError that names the tensor when a value is NaN or infinite.
        """
        entries = len(chunk["adapted"])
        extent = max(1, (self.row or self.entries) // self.parts)
        taken = slice(None) if self.row else slice(part, None)
        for delta, (start, end) in self.deltas.items():
            out = outputs.get(delta, NO_OUTPUT)
            kernels.add_delta(chunk[start], chunk[end], extent, self._squares[delta][taken], self._others[delta], out)
        self._check_finite(chunk, names)
        if self.row:
            self._counts = [count + entries // self.parts for count in self._counts]
        else:
            for place in range(0, entries, extent):
                self._counts[part + place // extent] += min(extent, entries - place)
        if len(self.deltas) == 2:
            three, bins = (chunk["base"], chunk["adapted"], chunk["safety"]), np.zeros_like(self._bins)
            variance = kernels.add_sample(*three, 1 if self.entries <= MAX_UNSAMPLED else STRIDE, bins)
            self._cross += (*kernels.cross(*three), variance)
            self._bins += bins

    def join(self, other: "Accumulator") -> None:
        """Add the sums of another range of the same pair."""
        self._counts = [first + second for first, second in zip(self._counts, other._counts, strict=True)]
        for delta in self.deltas:
            self._squares[delta] += other._squares[delta]
            mine, others = self._others[delta], other._others[delta]
            mine[:] = mine[0] + others[0], mine[1] + others[1], max(mine[2], others[2])
        self._cross += other._cross
        self._bins += other._bins

    def statistics(self, safetensors_dtypes: Mapping[str, str]) -> PairStatistics:
        """All sums of the pair. safetensors_dtypes: role -> dtype by the format's own name, which sets the size of
        rounding errors."""
        entries = sum(self._counts)
        sums = {
            delta: DeltaSums(entries, *squares.sum(0).tolist(), *self._others[delta].tolist())
            for delta, squares in self._squares.items()
        }
        if len(sums) < 2:
            return PairStatistics(sums.get("vl"), sums.get("safety"))
        *cross, variance = self._cross.tolist()
        vl, safety = sums["vl"], sums["safety"]
        expected = independent_sums(self._bins, variance, entries, vl, safety, safetensors_dtypes)
        between = BetweenSums(vl.delta_squared, safety.delta_squared, *cross, **expected)
        return PairStatistics(vl, safety, between)

    def energies(self) -> dict[str, float]:
        """Squared norms: of each delta by its name, and of the tensor that the first one starts from ("start")."""
        energies: dict[str, float] = {}
        for delta, squares in self._squares.items():
            energies[delta], before, _ = squares.sum(0).tolist()
            energies.setdefault("start", before)
        return energies

    def part_sums(self, delta: str) -> list[DeltaSums]:
        """The squares of every head or expert, of one delta."""
        return [DeltaSums(*part) for part in zip(self._counts, *self._squares[delta].T.tolist(), strict=True)]

    def _check_finite(self, chunk: Mapping[str, np.ndarray], names: Mapping[str, str]) -> None:
        """A NaN or an infinity among the entries makes a sum NaN or infinite, so that the sums alone are checked."""
        if all(np.isfinite(squares).all() for squares in self._squares.values()):
            return
        broken = [names[role] for role, vector in chunk.items() if not np.isfinite(upcast(vector)).all()]
        raise CheckpointError(
            f"{' and '.join(broken) or ' or '.join(names.values())}: holds NaN or infinite values, or values whose "
            "squares are too large for float64. Such a checkpoint is broken; get it again."
        )
