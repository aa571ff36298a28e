"""The largest eigenvalue of a matrix that can only be multiplied by, bounded from above with random probes."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

# Each probe misses the largest direction (has less than MISS along it) with probability .42, and all sixteen with one
# in a million.
PROBES: Final = 16
MISS: Final = 0.553


def largest_eigenvalue_bound(powers: Sequence[Tensor], off: float = 0.0) -> float:
    """A bound on the largest eigenvalue x of G = R^T R, wrong for one draw of the probes in a million.

    powers: W, G W, .. G^p W, [n, 16] each, with W of standard normal entries that G knows nothing of. off: how far
    rounding puts a product by R off, beside the factor's norm.

    Whatever the polynomial q, ||q(G) w|| >= |q(x)| |<w, u>|, u being x's direction, so that |q(x)| is at most the
    largest ||q(G) w|| / .553 of all probes w. Of q = x^p that is lemma 4.1 of Halko, Martinsson and Tropp 2011,
    "Finding structure with randomness". Sooner near is the monic q that leaves the least of all probes, whose zeros
    lie among the eigenvalues, and which climbs steeply behind the last of them (Hochstenbach 2013, "Probabilistic
    upper bounds for the matrix two-norm"). The lower one of the two bounds is given.
    """
    degree, shape = len(powers) - 1, powers[0].shape
    vectors = torch.stack([each.double() for each in powers]).reshape(len(powers), -1)
    sizes = vectors.norm(dim=1)
    if not sizes[-1]:
        return 0.0
    vectors /= sizes[:, None]
    whole = _largest(vectors[-1].view(shape))
    plain = (float(sizes[-1]) * whole / MISS) ** (1 / degree)
    products = vectors @ vectors.T
    shares = torch.linalg.pinv(products[:-1, :-1], hermitian=True) @ products[:-1, -1]
    left = _largest((vectors[-1] - shares @ vectors[:-1]).view(shape)) / whole
    # The polynomial of x as a multiple of `plain`, less what it may come to at most.
    units = sizes[-1] / sizes[:-1] * plain ** torch.arange(-degree, 0.0, dtype=torch.float64)
    polynomial = np.array([1.0, *(-shares * units).flip(0).tolist()])
    polynomial[-1] -= left + 2 * degree * off / math.sqrt(plain)
    return plain * min(1.0, float(np.roots(polynomial).real.max()))


def _largest(vectors: Tensor) -> float:
    """The largest norm of a column."""
    return float(vectors.norm(dim=0).max())
