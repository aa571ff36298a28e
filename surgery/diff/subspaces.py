"""How the leading singular directions of a delta lie to those of the base, and to those of another delta.

U_k and V_k are the base's leading left and right singular directions, k a quarter of the smaller side but at most 64.
"""

from typing import Final, NamedTuple

from torch import Tensor

from vlsurgery.surgery.diff.matrices import Matrix, times
from vlsurgery.surgery.diff.spectrum import NUM_SINGULAR_VALUES, Spectrum

NUM_COMPARED: Final = 8  # directions of a delta that are compared


class Subspaces(NamedTuple):
    """The base's leading directions, [rows, k] and [columns, k], orthonormal."""

    left: Tensor
    right: Tensor

    @property
    def shares(self) -> tuple[float, float]:
        """Their share of all directions on the left and on the right: k/m and k/n."""
        return self.left.shape[1] / len(self.left), self.right.shape[1] / len(self.right)


def base_rank(shape: tuple[int, ...]) -> int:
    """k, the number of the base's directions that count as leading."""
    return max(1, min(NUM_SINGULAR_VALUES, min(shape) // 4))


def base_overlap(delta: Matrix, energy: float, base: Subspaces) -> float:
    """Share of the delta's squared norm within the base's leading subspaces on both sides:
    ||U_k^T D V_k||^2 / ||D||^2, in [0, 1]."""
    return min(1.0, float((base.left.T @ times(delta, base.right)).double().square().sum()) / energy)


def overlap_null(base: Subspaces) -> float:
    """The base overlap that is expected of a delta of random direction: k^2 / (m n)."""
    left, right = base.shares
    return left * right


def intruder_share(delta: Spectrum, base: Subspaces) -> float:
    """Share of the squared norm of D_8, the delta's leading 8 directions, outside of the base's leading subspaces on
    both sides: ||(I - U_k U_k^T) D_8 (I - V_k V_k^T)||^2 / ||D_8||^2, in [0, 1].

    A relative of the intruder dimensions of Shuttleworth et al. 2024 (arXiv 2410.21228): leading singular directions
    of the tuned weights that resemble none of the base's.
    """
    count = min(NUM_COMPARED, delta.left.shape[1])
    sizes = delta.values[:count]
    outside = [
        (side - basis @ (basis.T @ side)).double()
        for side, basis in ((delta.left[:, :count], base.left), (delta.right[:, :count], base.right))
    ]
    left, right = ((each.T @ each) for each in outside)
    energy = float(((left * sizes).T * sizes * right.T).sum())
    return min(1.0, max(0.0, energy / float(sizes.square().sum())))


def intruder_share_null(base: Subspaces) -> float:
    """The intruder share that is expected of random directions: (1 - k/m) (1 - k/n)."""
    left, right = base.shares
    return (1 - left) * (1 - right)


def overlap(first: Tensor, second: Tensor) -> float:
    """Mean squared cosine of the principal angles between the spans of two orthonormal bases: ||A^T B||^2 over the
    smaller number of directions, in [0, 1]."""
    count = min(first.shape[1], second.shape[1])
    return min(1.0, float((first.T @ second).double().square().sum()) / count)


def random_overlap(first: Tensor, second: Tensor) -> float:
    """The overlap that is expected of independent random subspaces of these sizes: the larger number of directions
    over the dimension."""
    return max(first.shape[1], second.shape[1]) / len(first)
