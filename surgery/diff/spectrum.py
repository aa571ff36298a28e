"""The leading singular values and directions of a matrix that is read in chunks of rows, with a bound on their error.

Small matrices: exactly, from the Gram matrix in float64. Others: randomised subspace iteration (Halko, Martinsson and
Tropp 2011, "Finding structure with randomness", algorithms 4.4 and 5.1), of which every pass is a product of matrices.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, Protocol

import torch
from torch import Tensor

from vlsurgery.surgery.diff.norm_bounds import NUM_TEST_VECTORS, largest_eigenvalue_bound
from vlsurgery.surgery.runtime.jit import round_to_bfloat16, upcast_into

NUM_SINGULAR_VALUES: Final = 64  # singular values that are reported
OVERSAMPLING: Final = 16  # directions that are carried along so that those converge sooner
POWER_ITERATIONS: Final = 2  # of subspace iteration
MAX_EXACT_SIDE: Final = 512  # a smaller side up to this is decomposed exactly

REMAINDER_POWERS: Final = 3  # of the remainder's Gram matrix, that random probes are multiplied by to bound its norm

FLOAT32_ERROR: Final = 2e-6  # of float32 products, beside the largest singular value
FLOAT64_EPSILON: Final = 2.0**-52
# Matrices in memory that have up to so many entries are one chunk, so that threads seldom wait to get hold of Python.
# CHUNK is the size of others' chunks, and of what is converted, or added up, at a time: it stays in the cache.
MAX_CHUNK: Final = 1 << 24
CHUNK: Final = 1 << 20


class Matrix(Protocol):
    """A matrix of float32 that is gone through in chunks of rows."""

    @property
    def shape(self) -> tuple[int, int]: ...

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        """The first row of each chunk, and the chunk; good until the next one."""


class InMemoryMatrix:
    """A matrix in memory, of float32."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self._narrow: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.matrix.shape
        return rows, columns

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        entries = self.matrix.numel()
        return _chunks(self.matrix, entries if entries <= MAX_CHUNK else CHUNK)

    def narrow_chunks(self) -> Iterator[Tensor]:
        """The chunks in bfloat16; that of a matrix that is one chunk is converted once."""
        if self.matrix.numel() > MAX_CHUNK:
            return (_bfloat16(chunk) for _, chunk in self.chunks())
        if self._narrow is None:
            self._narrow = _bfloat16(self.matrix)
        return iter([self._narrow])


class BFloat16Matrix:
    """A matrix in memory, of bfloat16 by its bits."""

    def __init__(self, bits: Tensor) -> None:
        self.matrix = bits.view(torch.bfloat16)

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = self.matrix.shape
        return rows, columns

    def chunks(self) -> Iterator[tuple[int, Tensor]]:
        kept: Tensor | None = None
        for row, part in _chunks(self.matrix, CHUNK):
            kept = torch.empty(part.shape) if kept is None else kept[: len(part)]
            upcast_into(part.reshape(-1).view(torch.uint16).numpy(), kept.view(-1).numpy())
            yield row, kept

    def narrow_chunks(self) -> Iterator[Tensor]:
        """The whole, as it is."""
        return iter([self.matrix])


def _chunks(matrix: Tensor, entries: int) -> Iterator[tuple[int, Tensor]]:
    """Rows of about so many entries together, with the first one's number."""
    rows = max(1, entries // matrix.shape[1])
    return ((row, matrix[row : row + rows]) for row in range(0, len(matrix), rows))


@dataclass(frozen=True)
class Spectrum:
    """Singular values and directions of a matrix D.

    values: float64, falling; all of them where `is_exact`, else the leading ones, none larger than the true one. error:
    how much larger the true ones of `reported` can be. left, right: [rows, k] and [columns, k] float32, the
    directions of the leading values that are not 0, k at most 64. energy: the squared Frobenius norm of D. remainder:
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

    The randomised values are those of Q^T D, with Q orthonormal: by Cauchy's interlacing none is larger than the true
    one. By Weyl's inequality s_i^2 <= sigma_i^2 + ||(I - Q Q^T) D||^2 (spectral norm). That norm is bounded by the
    remainder's Frobenius norm, which is known up to rounding, and by random probes (see `largest_eigenvalue_bound`),
    wrong for one seed in a million.
    """
    if is_exact(matrix):
        return _exact(matrix, energy, NUM_SINGULAR_VALUES)
    generator = torch.Generator().manual_seed(seed)
    width = min(*matrix.shape, NUM_SINGULAR_VALUES + OVERSAMPLING)
    right = _range(matrix, width, POWER_ITERATIONS, generator)
    probes = torch.randn(matrix.shape[1], NUM_TEST_VECTORS, generator=generator)
    image = times(matrix, torch.cat((right, probes), 1))
    left, rest = _orthonormal(image[:, :width]), image[:, width:].clone()
    del image
    image = transposed_times(matrix, torch.cat((left, _without(rest, left)), 1))
    back, probed = image[:, :width], image[:, width:]
    right, values, turn = torch.linalg.svd(back, full_matrices=False)
    values = values.double()
    first, last = float(values[0]), float(values[min(NUM_SINGULAR_VALUES, width) - 1])
    # The values are rounded, each by so much; what they leave of the energy may be smaller than that.
    slack = 2 * FLOAT32_ERROR * first * float(values.sum())
    left_over = math.sqrt(max(0.0, energy - float(values.square().sum())) + slack)
    rest_norm = _remainder_norm(matrix, left, back, (probes, probed), FLOAT32_ERROR * first)
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
    at most `keep`: the best ones within the range that subspace iteration found, with no bound."""
    if is_exact(matrix):
        found = _exact(matrix, 0.0, keep)
        return found.left, found.right
    generator = torch.Generator().manual_seed(seed)
    right = _range(matrix, min(*matrix.shape, keep + OVERSAMPLING), POWER_ITERATIONS, generator)
    left, rest = torch.linalg.qr(times(matrix, right))
    turn, values, back = torch.linalg.svd(rest)
    count = min(keep, int((values > FLOAT32_ERROR * values[0]).sum()))
    return left @ turn[:, :count], right @ back[:count].T


def is_small(shape: Sequence[int]) -> bool:
    """Whether a matrix of this shape can be decomposed exactly."""
    return min(shape) <= MAX_EXACT_SIDE


def is_exact(matrix: Matrix) -> bool:
    """Whether a matrix is decomposed exactly: a small one is; a wide one must be held as a whole for that."""
    return matrix.shape[1] <= MAX_EXACT_SIDE or (is_small(matrix.shape) and isinstance(matrix, InMemoryMatrix))


def _range(matrix: Matrix, width: int, steps: int, generator: torch.Generator) -> Tensor:
    """Orthonormal columns that nearly span the leading right singular directions."""
    right = torch.randn(matrix.shape[1], width, generator=generator)
    for _ in range(steps):
        right = _orthonormal(gram_times(matrix, right))
    return right


def _remainder_norm(
    matrix: Matrix, left: Tensor, back: Tensor, probed: tuple[Tensor, Tensor], rounding: float
) -> float:
    """A bound on the norm of R = (I - Q Q^T) D. left, back: Q, D^T Q. probed: W and G W, with W random and G = R^T R.
    rounding: how far a product by D is put off by it, beside the factor's norm."""
    wide = [each.double() for each in probed]
    scale = float(wide[1].norm() / wide[0].norm())
    if scale < torch.finfo(torch.float32).tiny:  # A further power would vanish.
        return math.sqrt(largest_eigenvalue_bound(wide))
    powers = [probed[0], probed[1] / scale]
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
    # What rounding left inside of Q would else come back multiplied by the largest singular values.
    return found.T - back @ leak


def _exact(matrix: Matrix, energy: float, keep: int) -> Spectrum:
    """By the eigenvalues of the Gram matrix of the smaller side, in float64. Rounding moves these by no more than
    n 2^-52 s_1^2 or so."""
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
    """D D^T of a wide matrix that is held, else D^T D; float64."""
    if wide and isinstance(matrix, InMemoryMatrix):
        whole = matrix.matrix.double()
        return whole @ whole.T
    gram = torch.zeros(matrix.shape[1], matrix.shape[1], dtype=torch.float64)
    for _, chunk in matrix.chunks():
        for _, part in _chunks(chunk, CHUNK):
            doubled = part.double()
            gram.addmm_(doubled.T, doubled)
    return gram


def times(matrix: Matrix, right: Tensor) -> Tensor:
    """D V."""
    found, right = torch.empty(matrix.shape[0], right.shape[1]), right.contiguous()
    for row, chunk in matrix.chunks():
        torch.mm(chunk, right, out=found[row : row + len(chunk)])
    return found


def transposed_times(matrix: Matrix, left: Tensor) -> Tensor:
    """D^T U."""
    across = left.T.contiguous()
    found = torch.zeros(len(across), matrix.shape[1])
    for row, chunk in matrix.chunks():
        for inner, part in _chunks(chunk, CHUNK):
            found.addmm_(across[:, row + inner : row + inner + len(part)], part)
    return found.T


def gram_times(matrix: Matrix, right: Tensor) -> Tensor:
    """About D^T D V, in one pass over D: good enough to find a subspace that is then measured in float32.

    Where the processor multiplies bfloat16 natively, that takes a third of the time.
    """
    found = torch.zeros(right.shape[1], matrix.shape[1])
    narrow = multiplies_bfloat16()
    right = (right.bfloat16() if narrow else right).contiguous()
    for part in _parts(matrix, narrow):
        found += (part @ right).T.contiguous() @ part
    return found.T


def _parts(matrix: Matrix, narrow: bool) -> Iterator[Tensor]:
    if narrow and isinstance(matrix, InMemoryMatrix | BFloat16Matrix):
        return matrix.narrow_chunks()
    return (_bfloat16(chunk) if narrow else chunk for _, chunk in matrix.chunks())


def _bfloat16(chunk: Tensor) -> Tensor:
    """A chunk in bfloat16, sooner than torch has it."""
    made = torch.empty(chunk.shape, dtype=torch.bfloat16)
    round_to_bfloat16(chunk.reshape(-1).numpy(), made.view(-1).view(torch.uint16).numpy())
    return made


@cache
def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16. Where torch can't tell, it is taken to have
    none, because without them such products take many times as long."""
    tell = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return tell is not None and bool(tell())


def _orthonormal(matrix: Tensor) -> Tensor:
    return torch.linalg.qr(matrix)[0]


def _without(vectors: Tensor, basis: Tensor) -> Tensor:
    """What of the vectors stands at right angles to an orthonormal basis; twice, so that rounding leaves nothing."""
    for _ in range(2):
        vectors = vectors - basis @ (basis.T @ vectors)
    return vectors
