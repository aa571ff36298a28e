"""What mergekit's methods are told: our methods' parameters, and what only mergekit has beside them."""

from collections.abc import Mapping
from typing import Final

from vlsurgery.surgery.methods import METHODS

Scalar = float | bool

# What may have a value for each model; the other parameters have one for all.
PER_MODEL: Final = ("weight", "density", "gamma", "epsilon")
_SWITCHES: Final = ("normalize", "rescale", "filter_wise", "int8_mask")
# Every parameter of mergekit's that is known here, in the order in which it is written, and its type.
KINDS: Final[Mapping[str, type[Scalar]]] = {
    name: bool if name in _SWITCHES else float
    for name in ("normalize", "lambda", "rescale", "filter_wise", "int8_mask", "t", *PER_MODEL)
}
# How mergekit holds masks in memory: any method takes it, and it changes no number.
NEUTRAL: Final = "int8_mask"

# Method of both tools -> the parameters that our method lacks, with their defaults. None: a value must be given.
# False: a switch that only mergekit has; our method computes as if it were off.
_LACKED: Final[Mapping[str, Mapping[str, Scalar | None]]] = {
    "linear": {"weight": None},
    "slerp": {"t": None},
    "model_stock": {"filter_wise": False},
    "task_arithmetic": {"weight": None},
    "ties": {"weight": None, "rescale": False},
    "dare_linear": {"weight": None},
    "dare_ties": {"weight": None},
    "della_linear": {"weight": None},
    "della": {"weight": None},
    "breadcrumbs": {"weight": None, "rescale": False},
    "breadcrumbs_ties": {"weight": None, "rescale": False},
}
# Method -> parameter -> default, in the order of KINDS.
TAKEN: Final[Mapping[str, Mapping[str, Scalar | None]]] = {
    method: {
        name: lacked[name] if name in lacked else METHODS[method].parameters[name].default
        for name in KINDS
        if name in lacked or name in METHODS[method].parameters
    }
    for method, lacked in _LACKED.items()
}
