"""An upper bound on the largest eigenvalue of a matrix that is known by its products with random test vectors."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

# A test vector misses the leading eigenvector (has a component below MISSED_COMPONENT along it) with probability .42;
# all sixteen miss it with probability one in a million.
NUM_TEST_VECTORS: Final = 16
MISSED_COMPONENT: Final = 0.553


def largest_eigenvalue_bound(powers: Sequence[Tensor], off: float = 0.0) -> float:
    """An upper bound on the largest eigenvalue x of G = R^T R, wrong for one draw of test vectors in a million.

    powers: W, G W, .. G^p W, [n, 16] each, with W of standard normal entries that are independent of G. off: rounding
    error of a product by R, relative to the factor's norm. It is allowed for once per product, as an error that favours
    the leading eigenvector no more than other directions.

    For every polynomial q, ||q(G) w|| >= |q(x)| |<w, u>|, u being the eigenvector of x, so that |q(x)| is at most the
    largest ||q(G) w|| / .553 over the test vectors w. For q = x^p that is lemma 4.1 of Halko, Martinsson and Tropp
    2011, "Finding structure with randomness". The monic q for which all q(G) w together are smallest comes closer: its
    zeros lie among the eigenvalues or nearly so, and it rises steeply beyond the last of them (Hochstenbach 2013,
    "Probabilistic upper bounds for the matrix two-norm"). The lower of the two bounds is returned.
    """
    degree, shape = len(powers) - 1, powers[0].shape
    vectors = torch.stack(list(powers)).reshape(len(powers), -1)
    products = (vectors @ vectors.T).double()
    sizes = products.diagonal().sqrt()
    if not sizes[-1]:
        return 0.0
    products /= torch.outer(sizes, sizes)
    plain = (_largest(vectors[-1].view(shape)) / MISSED_COMPONENT) ** (1 / degree)
    noise = len(products) * torch.finfo(vectors.dtype).eps
    shares = torch.linalg.pinv(products[:-1, :-1], rtol=noise, hermitian=True) @ products[:-1, -1]
    shares = (shares * sizes[-1] / sizes[:-1]).to(vectors.dtype)
    left = _largest((vectors[-1] - shares @ vectors[:-1]).view(shape)) / MISSED_COMPONENT
    # q(x) minus its largest possible value, with x in units of `plain`.
    lower = -shares.double() * plain ** torch.arange(-degree, 0.0, dtype=torch.float64)
    polynomial = np.array([1.0, *lower.flip(0).tolist()])
    polynomial[-1] -= left / plain**degree + 2 * degree * off / math.sqrt(plain)
    return plain * min(1.0, float(np.roots(polynomial).real.max()))


def _largest(vectors: Tensor) -> float:
    """The largest norm of a column."""
    return float(vectors.norm(dim=0).max())
