"""Merge methods as pure functions on tensors, and the table of them.

Adding a method: write a function `(adapted, others, coefficients) -> Tensor` on tensors of one shape, and a row in
METHODS that states its formula, its source and the laws that it obeys. tests/surgery/test_methods.py runs the laws of
every row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

# identity: all coefficients 0 give `adapted`, bit for bit. endpoint: one coefficient 1 and the rest 0 give that other,
# bit for bit. equal_inputs: when all tensors are equal, so is the result. linear: the move from `adapted` is
# proportional to the coefficients and the moves that they ask for add up. permutation: the order of the others does
# not matter.
Law = Literal["identity", "endpoint", "equal_inputs", "linear", "permutation"]


class MergeFunction(Protocol):
    def __call__(
        self, adapted: "Tensor", others: Mapping[str, "Tensor"], coefficients: Mapping[str, float]
    ) -> "Tensor": ...


@dataclass(frozen=True)
class Method:
    """A row of the table. `formula` in words that fit a model card; `source`: the paper, or whose idea it is."""

    function: MergeFunction
    formula: str
    source: str
    laws: tuple[Law, ...]


def blend(adapted: "Tensor", others: Mapping[str, "Tensor"], coefficients: Mapping[str, float]) -> "Tensor":
    """Move a tensor toward others, each by its own share: theta = adapted + sum over r of c_r (theta_r - adapted).

    adapted: where the move starts. others: role -> tensor of the same shape. coefficients: role -> c_r in [0, 1]; a
    role that is missing counts as 0, one that is not in `others` must be 0. With base alone this is linear
    interpolation; c_base = c_safety = 1 adds both whole moves.

    Computed in float32 (float64 where the weights are), stored in the dtype of `adapted`, rounded to nearest even.
    With all c = 0 the result is `adapted` itself, and with one c = 1 alone the other tensor itself, not a rounding of
    it. The roles' order of summation is fixed, so the order of the mapping never changes a bit.
    """
    active = sorted(role for role, share in coefficients.items() if share != 0)
    missing = [role for role in active if role not in others]
    if missing:
        raise ValueError(f"a coefficient for {missing[0]!r}, but no such tensor")
    if not active:
        return adapted
    if len(active) == 1 and coefficients[active[0]] == 1:
        return others[active[0]].to(adapted.dtype)
    start = _precise(adapted)
    result = start.clone()
    for role in active:
        result += coefficients[role] * (_precise(others[role]) - start)
    return result.to(adapted.dtype)


def _precise(tensor: "Tensor") -> "Tensor":
    return tensor if tensor.dtype.itemsize > 4 else tensor.float()


METHODS: Final[dict[str, Method]] = {
    "blend": Method(
        function=blend,
        formula="theta = adapted + c_base (base - adapted) + c_safety (safety - adapted)",
        source="interpolation toward two models at once; one pair of coefficients per block is ours",
        laws=("identity", "endpoint", "equal_inputs", "linear", "permutation"),
    ),
}
