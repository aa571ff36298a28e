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
    rounding puts a product by R off, beside the factor's norm. That is allowed for once per product, as for errors that
    have no more to do with the largest direction than with others.

    Whatever the polynomial q, ||q(G) w|| >= |q(x)| |<w, u>|, u being x's direction, so that |q(x)| is at most the
    largest ||q(G) w|| / .553 of all probes w. Of q = x^p that is lemma 4.1 of Halko, Martinsson and Tropp 2011,
    "Finding structure with randomness". Sooner near is the monic q that leaves the least of all probes, whose zeros
    lie among the eigenvalues or nearly so, and which climbs steeply behind the last of them (Hochstenbach 2013,
    "Probabilistic upper bounds for the matrix two-norm"). The lower one of the two bounds is given.
    """
    degree, shape = len(powers) - 1, powers[0].shape
    vectors = torch.stack(list(powers)).reshape(len(powers), -1)
    products = (vectors @ vectors.T).double()
    sizes = products.diagonal().sqrt()
    if not sizes[-1]:
        return 0.0
    products /= torch.outer(sizes, sizes)
    plain = (_largest(vectors[-1].view(shape)) / MISS) ** (1 / degree)
    noise = len(products) * torch.finfo(vectors.dtype).eps
    shares = torch.linalg.pinv(products[:-1, :-1], rtol=noise, hermitian=True) @ products[:-1, -1]
    shares = (shares * sizes[-1] / sizes[:-1]).to(vectors.dtype)
    left = _largest((vectors[-1] - shares @ vectors[:-1]).view(shape)) / MISS
    # q(x) less what that may come to at most, with x counted in multiples of `plain`.
    lower = -shares.double() * plain ** torch.arange(-degree, 0.0, dtype=torch.float64)
    polynomial = np.array([1.0, *lower.flip(0).tolist()])
    polynomial[-1] -= left / plain**degree + 2 * degree * off / math.sqrt(plain)
    return plain * min(1.0, float(np.roots(polynomial).real.max()))


def _largest(vectors: Tensor) -> float:
    """The largest norm of a column."""
    return float(vectors.norm(dim=0).max())
