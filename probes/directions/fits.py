"""Fitting directions to harmful and harmless states of one layer and position."""

from collections.abc import Callable
from typing import Final, Literal, get_args

import torch
from torch import Tensor

from vlsurgery.probes.directions.direction import Direction
from vlsurgery.probes.directions.linear_probes import logistic_weights, ridge_weights
from vlsurgery.surgery.errors import SurgeryError

Method = Literal["means", "ridge", "logistic", "pca"]
METHODS: Final[tuple[Method, ...]] = get_args(Method)
LEAST: Final = 1e-10  # length of a direction, as a share of what it was taken from, below which it is rounding


def fit(
    harmful: Tensor,
    harmless: Tensor,
    method: Method = "means",
    k: int = 1,
    remove_harmless_mean: bool = False,
) -> Direction:
    """The direction that tells harmful states [n, d] from harmless ones [m, d], in float64.

    method: `means`, the difference of means (Arditi et al., arXiv 2406.11717), which is what can be ablated and added;
        `ridge` and `logistic`, linear probes by scikit-learn, which bound what a line can read on states that they
        were not fitted to; `pca`, the `k` first principal components of the differences between row i of harmful and
        row i of harmless (Zou et al., arXiv 2310.01405), not centred, so that their mean is part of them.
    remove_harmless_mean: take the projection on the harmless mean out, so that ablating the direction leaves alone
        what all states have in common.

    Inputs are not changed. Raises SurgeryError for tensors that don't fit together, are not finite, or have no
    difference.
    """
    _check(harmful, harmless, method, k)
    ours, theirs = harmful.detach().double(), harmless.detach().double()
    units, gaps = _fitted(ours, theirs, method, k, remove_harmless_mean)
    return Direction(units, gaps, method, _split_half(ours, theirs, method, k, remove_harmless_mean))


def _check(harmful: Tensor, harmless: Tensor, method: str, k: int) -> None:
    for name, states in (("harmful", harmful), ("harmless", harmless)):
        if states.ndim != 2 or len(states) < 1:
            raise SurgeryError(
                f"fit: {name} must be [rows, width] with a row at least, but is {list(states.shape)}. Give the states "
                "of one layer and position."
            )
        if not states.isfinite().all():
            raise SurgeryError(f"fit: {name} holds NaN or infinite values. Leave out the rows that have them.")
    if harmful.shape[1] != harmless.shape[1]:
        raise SurgeryError(
            f"fit: harmful states have width {harmful.shape[1]} and harmless ones {harmless.shape[1]}. Give the states "
            "of one model and layer."
        )
    if method not in METHODS:
        raise SurgeryError(f"fit: method must be one of {', '.join(METHODS)}, not {method!r}.")
    if method == "pca" and len(harmful) != len(harmless):
        raise SurgeryError(
            f"fit: method pca takes pairs, so as many harmless rows as harmful ones, but there are {len(harmful)} "
            f"harmful and {len(harmless)} harmless rows. Give pairs, or take method means."
        )
    most = min(len(harmful), harmful.shape[1]) if method == "pca" else 1
    if not 1 <= k <= most:
        raise SurgeryError(
            f"fit: k must be 1 to {most} here, not {k}. Only method pca gives several directions, and no more than "
            "there are pairs or dimensions."
        )


def _fitted(
    harmful: Tensor, harmless: Tensor, method: Method, k: int, remove_harmless_mean: bool
) -> tuple[Tensor, Tensor]:
    """Units [k, d] and gaps [k]."""
    difference = harmful.mean(0) - harmless.mean(0)
    found = _RAW[method](harmful, harmless, k)
    scale = found.norm(dim=-1)
    if remove_harmless_mean:
        common = torch.nn.functional.normalize(harmless.mean(0), dim=0)
        found = found - (found @ common)[:, None] * common
    floor = LEAST * torch.maximum(scale, _scale(harmful, harmless, method))
    if (found.norm(dim=-1) <= floor).any():
        raise SurgeryError(
            "fit: harmful and harmless states have no difference"
            + (" apart from the harmless mean" if remove_harmless_mean else "")
            + ", so there is no direction. Give other states."
        )
    # at right angles, with the first as it was; QR may turn signs, which the gaps turn back
    units = torch.linalg.qr(found.T)[0].T if len(found) > 1 else torch.nn.functional.normalize(found, dim=-1)
    gaps = units @ difference
    signs = torch.where(gaps < 0, -1.0, 1.0).to(units)
    return units * signs[:, None], gaps * signs


def _scale(harmful: Tensor, harmless: Tensor, method: Method) -> Tensor:
    """The length of states, against which a difference of them may be rounding; weights of probes have none."""
    if method in ("ridge", "logistic"):
        return harmful.new_zeros(())
    return torch.maximum(harmful.abs().amax(), harmless.abs().amax())


def _means(harmful: Tensor, harmless: Tensor, k: int) -> Tensor:  # noqa: ARG001  one direction is all there is
    return (harmful.mean(0) - harmless.mean(0))[None]


def _principal(harmful: Tensor, harmless: Tensor, k: int) -> Tensor:
    """[k, d] principal components of paired differences, each as long as its root mean square."""
    differences = harmful - harmless
    _, values, components = torch.linalg.svd(differences, full_matrices=False)
    return components[:k] * (values[:k] / len(differences) ** 0.5)[:, None]


_RAW: Final[dict[Method, Callable[[Tensor, Tensor, int], Tensor]]] = {
    "means": _means,
    "ridge": ridge_weights,
    "logistic": logistic_weights,
    "pca": _principal,
}


def _split_half(harmful: Tensor, harmless: Tensor, method: Method, k: int, remove: bool) -> float | None:
    """Cosine between directions of even and odd rows; None where a half can't make one."""
    if min(len(harmful), len(harmless)) < 2 * k:
        return None
    try:
        halves = [_fitted(harmful[at::2], harmless[at::2], method, k, remove)[0] for at in (0, 1)]
    except SurgeryError:  # the rows of a half are equal
        return None
    if k == 1:
        return float(halves[0][0] @ halves[1][0])
    return float(torch.linalg.svdvals(halves[0] @ halves[1].T).mean())
