"""The leading singular values and directions of a matrix that is read in chunks of rows, with a bound on their error.

Small matrices: exactly, from the Gram matrix in float64. Others: randomised subspace iteration (Halko, Martinsson and
Tropp 2011, "Finding structure with randomness", algorithms 4.4 and 5.1), of which every pass is a product of matrices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from vlsurgery.surgery.diff.matrices import (
    CHUNK,
    InMemoryMatrix,
    Matrix,
    gram_times,
    row_chunks,
    times,
    transposed_times,
)
from vlsurgery.surgery.diff.norm_bounds import NUM_TEST_VECTORS, largest_eigenvalue_bound

NUM_SINGULAR_VALUES: Final = 64  # singular values that are reported
OVERSAMPLING: Final = 16  # further directions of the iterated subspace, so that the reported ones converge sooner
POWER_ITERATIONS: Final = 2  # multiplications of the subspace by D^T D
MAX_EXACT_SIDE: Final = 512  # smaller side up to which a matrix is decomposed exactly
REMAINDER_POWERS: Final = 3  # multiplications of test vectors by the remainder's Gram matrix, to bound its norm

FLOAT32_ERROR: Final = 2e-6  # rounding error of float32 products, relative to the largest singular value
FLOAT64_EPSILON: Final = 2.0**-52


@dataclass(frozen=True)
class Spectrum:
    """Singular values and directions of a matrix D.

    energy: the squared Frobenius norm of D. values: float64, descending; all of them where `is_exact`, else the leading
    ones, none larger than the true one. left, right: [rows, k] and [columns, k] float32, the directions of the leading
    values that are not 0, k at most 64. error: how much larger than `reported` the true values can be. remainder: upper
    bound on the largest singular value that is not among `values`, 0 where all are.
    """

    shape: tuple[int, int]
    energy: float
    values: Tensor
    left: Tensor
    right: Tensor
    error: float
    remainder: float
    is_exact: bool

    @property
    def reported(self) -> Tensor:
        return self.values[:NUM_SINGULAR_VALUES]


def spectrum(matrix: Matrix, energy: float, seed: int) -> Spectrum:
    """The spectrum of a matrix that is not 0. energy: its squared Frobenius norm. seed: of the random directions.

    The randomised values s_i are those of Q^T D, with Q orthonormal: by Cauchy's interlacing none is larger than the
    true sigma_i. By Weyl's inequality sigma_i^2 <= s_i^2 + ||R||^2 (spectral norm), R = (I - Q Q^T) D being the
    remainder. ||R|| is bounded by R's Frobenius norm, which is known up to rounding, and by random test vectors (see
    `largest_eigenvalue_bound`), wrong for one seed in a million.
    """
    if is_exact(matrix):
        return _exact(matrix, energy, NUM_SINGULAR_VALUES)
    generator = torch.Generator().manual_seed(seed)
    width = min(*matrix.shape, NUM_SINGULAR_VALUES + OVERSAMPLING)
    right = _range(matrix, width, generator)
    tests = torch.randn(matrix.shape[1], NUM_TEST_VECTORS, generator=generator)
    image = times(matrix, torch.cat((right, tests), 1))
    left, rest = torch.linalg.qr(image[:, :width])[0], image[:, width:].clone()
    del image
    image = transposed_times(matrix, torch.cat((left, _without(rest, left)), 1))
    back, tested = image[:, :width], image[:, width:]
    right, values, turn = torch.linalg.svd(back, full_matrices=False)
    values = values.double()
    first, last = float(values[0]), float(values[min(NUM_SINGULAR_VALUES, width) - 1])
    # Rounding of the values, which can exceed the energy that they leave.
    slack = 2 * FLOAT32_ERROR * first * float(values.sum())
    left_over = math.sqrt(max(0.0, energy - float(values.square().sum())) + slack)
    rest_norm = _remainder_norm(matrix, left, back, (tests, tested), FLOAT32_ERROR * first)
    remainder = min(left_over, rest_norm) + FLOAT32_ERROR * first
    count = min(NUM_SINGULAR_VALUES, int((values > FLOAT32_ERROR * first).sum()))
    return Spectrum(
        shape=matrix.shape,
        energy=energy,
        values=values,
        left=left @ turn[:count].T,
        right=right[:, :count].clone(),
        error=math.hypot(last, remainder) - last + FLOAT32_ERROR * first,
        remainder=remainder,
        is_exact=False,
    )


def leading_directions(matrix: Matrix, seed: int, keep: int) -> tuple[Tensor, Tensor]:
    """The leading left and right singular directions of a matrix that is not 0, [rows, k] and [columns, k] float32, k
    at most `keep`: the best ones within the subspace that the iteration found; their error is not bounded."""
    if is_exact(matrix):
        found = _exact(matrix, 0.0, keep)
        return found.left, found.right
    generator = torch.Generator().manual_seed(seed)
    right = _range(matrix, min(*matrix.shape, keep + OVERSAMPLING), generator)
    left, rest = torch.linalg.qr(times(matrix, right))
    turn, values, back = torch.linalg.svd(rest)
    count = min(keep, int((values > FLOAT32_ERROR * values[0]).sum()))
    return left @ turn[:, :count], right @ back[:count].T


def is_small(shape: Sequence[int]) -> bool:
    """Whether the smaller side is short enough for an exact decomposition."""
    return min(shape) <= MAX_EXACT_SIDE


def is_exact(matrix: Matrix) -> bool:
    """Whether a matrix is decomposed exactly: a small one is, a wide small one if it is in memory."""
    return matrix.shape[1] <= MAX_EXACT_SIDE or (is_small(matrix.shape) and isinstance(matrix, InMemoryMatrix))


def _range(matrix: Matrix, width: int, generator: torch.Generator) -> Tensor:
    """Orthonormal columns that nearly span the leading right singular directions."""
    right = torch.randn(matrix.shape[1], width, generator=generator)
    for _ in range(POWER_ITERATIONS):
        right, _ = torch.linalg.qr(gram_times(matrix, right))
    return right


def _remainder_norm(
    matrix: Matrix, left: Tensor, back: Tensor, tested: tuple[Tensor, Tensor], rounding: float
) -> float:
    """An upper bound on the norm of R = (I - Q Q^T) D. left, back: Q, D^T Q. tested: W and G W, with W random and
    G = R^T R. rounding: error of a product by D, relative to the factor's norm."""
    wide = [each.double() for each in tested]
    scale = float(wide[1].norm() / wide[0].norm())
    if scale < torch.finfo(torch.float32).tiny:  # A further power would underflow.
        return math.sqrt(largest_eigenvalue_bound(wide))
    powers = [tested[0], tested[1] / scale]
    while len(powers) <= REMAINDER_POWERS:
        powers.append(_remainder_gram_times(matrix, left, back, powers[-1]) / scale)
    return math.sqrt(scale * largest_eigenvalue_bound(powers, rounding / math.sqrt(scale)))


def _remainder_gram_times(matrix: Matrix, left: Tensor, back: Tensor, right: Tensor) -> Tensor:
    """G V with G = R^T R and R = (I - Q Q^T) D, in one pass over D. left, back: Q, D^T Q."""
    right = right.contiguous()
    inside = back.T @ right  # Q^T D V
    found = torch.zeros(right.shape[1], matrix.shape[1])
    leak = torch.zeros(left.shape[1], right.shape[1])
    for row, chunk in matrix.chunks():
        basis = left[row : row + len(chunk)]
        outside = torch.addmm(chunk @ right, basis, inside, alpha=-1)
        found.addmm_(outside.T, chunk)
        leak.addmm_(basis.T, outside)
    # Without this, components along Q from rounding would come back multiplied by the largest singular values.
    return found.T - back @ leak


def _exact(matrix: Matrix, energy: float, keep: int) -> Spectrum:
    """The spectrum by the eigenvalues of the smaller side's Gram matrix, in float64. Rounding moves these by no more
    than about n 2^-52 s_1^2."""
    small = min(matrix.shape)
    wide = isinstance(matrix, InMemoryMatrix) and matrix.shape[0] < matrix.shape[1]
    squares, vectors = torch.linalg.eigh(_gram(matrix, wide))
    squares, vectors = squares.flip(0)[:small].clamp_min(0), vectors.flip(1)
    values = squares.sqrt()
    slack = small * FLOAT64_EPSILON * float(squares[0])
    last = float(values[min(NUM_SINGULAR_VALUES, small) - 1])
    count = min(keep, int((squares > slack).sum()))
    near = vectors[:, :count].float()
    far = (transposed_times(matrix, near) if wide else times(matrix, near)) / values[:count].float()
    left, right = (near, far) if wide else (far, near)
    return Spectrum(matrix.shape, energy, values, left, right, math.sqrt(last**2 + slack) - last, 0.0, True)


def _gram(matrix: Matrix, wide: bool) -> Tensor:
    """D D^T of a wide matrix in memory, else D^T D; float64."""
    if wide and isinstance(matrix, InMemoryMatrix):
        whole = matrix.matrix.double()
        return whole @ whole.T
    gram = torch.zeros(matrix.shape[1], matrix.shape[1], dtype=torch.float64)
    for _, chunk in matrix.chunks():
        for _, part in row_chunks(chunk, CHUNK):
            doubled = part.double()
            gram.addmm_(doubled.T, doubled)
    return gram


def _without(vectors: Tensor, basis: Tensor) -> Tensor:
    """The vectors less their projection on an orthonormal basis; taken twice, so that rounding leaves nothing of it."""
    for _ in range(2):
        vectors = vectors - basis @ (basis.T @ vectors)
    return vectors
