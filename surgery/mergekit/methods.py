"""What mergekit's methods take, by the names of both tools."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

Scalar = float | bool


@dataclass(frozen=True)
class Taken:
    """What one method of mergekit is told. A default of None: it must be given.

    shared: parameters with one value for all models. each: parameters with a value per model; mergekit has the weights
    among them. base: whether deltas are taken from a base model; where not, `base_model` is one model among the others.
    models: fewest and most models beside the base.
    """

    shared: Mapping[str, Scalar | None] = field(default_factory=dict)
    each: Mapping[str, Scalar | None] = field(default_factory=dict)
    base: bool = True
    models: tuple[int, int | None] = (1, None)


# Every parameter of theirs that we know, and whether it is a number or a switch.
KINDS: Final[Mapping[str, type[Scalar]]] = {
    "weight": float,
    "density": float,
    "gamma": float,
    "epsilon": float,
    "lambda": float,
    "t": float,
    "normalize": bool,
    "rescale": bool,
    "filter_wise": bool,
    "int8_mask": bool,
}

# How they hold masks in memory; it changes no number, whatever the method.
NEUTRAL: Final = frozenset({"int8_mask"})


def _moves(normalize: bool, rescale: bool | None = None, **each: float) -> Taken:
    """A method that adds up moves away from a base. rescale: None where there is nothing to rescale."""
    switches: dict[str, Scalar | None] = {"normalize": normalize, "lambda": 1.0}
    if rescale is not None:
        switches["rescale"] = rescale
    return Taken(shared=switches, each={"weight": None, **each})


TAKEN: Final[Mapping[str, Taken]] = {
    "linear": Taken(shared={"normalize": True}, each={"weight": None}, base=False),
    "slerp": Taken(shared={"t": None}, models=(1, 1)),
    "model_stock": Taken(shared={"filter_wise": False}, models=(2, None)),
    "task_arithmetic": _moves(normalize=False),
    "ties": _moves(normalize=True, rescale=False, density=1.0),
    "dare_linear": _moves(normalize=False, rescale=True, density=1.0),
    "dare_ties": _moves(normalize=False, rescale=True, density=1.0),
    "della_linear": _moves(normalize=False, rescale=True, density=1.0, epsilon=0.15),
    "della": _moves(normalize=True, rescale=True, density=1.0, epsilon=0.15),
    "breadcrumbs": _moves(normalize=False, rescale=False, density=1.0, gamma=0.01),
    "breadcrumbs_ties": _moves(normalize=False, rescale=False, density=1.0, gamma=0.01),
}

# Switches that only theirs have. Ours are as if these were off.
OFF: Final[Mapping[str, frozenset[str]]] = {
    "model_stock": frozenset({"filter_wise"}),
    "ties": frozenset({"rescale"}),
    "breadcrumbs": frozenset({"rescale"}),
    "breadcrumbs_ties": frozenset({"rescale"}),
}
