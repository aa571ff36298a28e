"""A direction in activation space, or several at right angles, as a frozen result that can be applied and moved."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Direction:
    """Where harmful states lie as seen from harmless ones.

    units: [k, d] of length 1 and at right angles to each other; harmful states have the larger mean along each.
    gaps: [k] by how much larger, in the states' own unit. method: how it was fitted. split_half: cosine in [-1, 1]
    between the directions of the even and of the odd rows, of several the mean over canonical angles; no cosine with
    another model's direction can be expected to exceed it by much. None where a half has too few rows.
    """

    units: Tensor
    gaps: Tensor
    method: str
    split_half: float | None

    @property
    def vectors(self) -> Tensor:
        """[k, d] the units, as long as the class means lie apart along them: what `vlsurgery.add` adds."""
        return self.units * self.gaps[:, None]

    @property
    def vector(self) -> Tensor:
        """[d] the first of `vectors`; of a difference of means, the difference itself."""
        return self.vectors[0]

    @property
    def unit(self) -> Tensor:
        """[d] the first of `units`."""
        return self.units[0]

    def apply(self, states: Tensor) -> Tensor:
        """How far states [..., d] lie along each direction: [..., k], without the last dimension where k is 1."""
        along = states.to(self.units) @ self.units.T
        return along[..., 0] if len(self.units) == 1 else along

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Direction":
        """The same direction on another device, or in another dtype."""
        units, gaps = (each.to(device=device, dtype=dtype) for each in (self.units, self.gaps))
        return Direction(units, gaps, self.method, self.split_half)
