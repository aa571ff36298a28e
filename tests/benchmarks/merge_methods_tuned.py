"""Merge methods of the field on a trio, each at a few settings: made in memory by this package's own registry.

Where no unaligned model is given, `safety` less `adapted` stands for what alignment changed. Its `unaligned` model,
base - (safety - adapted), exists tensor by tensor and is never written.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Final

from merge_field import Field, values_of
from torch import Tensor

from vlsurgery.probes.merge_parameters import MergeParameter
from vlsurgery.surgery.methods import METHODS

INPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "task_arithmetic": ("adapted", "safety"),
    "ties": ("adapted", "safety"),
    "dare_linear": ("adapted", "safety"),
    "safelora": ("adapted", "unaligned"),
    "safemerge": ("adapted", "safe", "unaligned"),
    "resta": ("adapted", "unaligned"),
}


@dataclass(frozen=True)
class Setting:
    """A method at one setting. weights: of the models, where the method weighs them; by default as it does."""

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, float] | None = None

    @property
    def label(self) -> str:
        named = {**(self.weights or {}), **self.parameters}
        return ", ".join(f"{name} {value:g}" for name, value in named.items())

    def make(self, of: Field, entry: MergeParameter) -> Tensor:
        """The merged tensor of one parameter; the adapted one where a model lacks it."""
        values = values_of(of.alignment, entry)
        adapted = values["adapted"]
        if not {"base", "safety"} <= values.keys():
            return adapted
        if "unaligned" not in of.alignment.checkpoints:
            values["unaligned"] = values["base"].float() - (values["safety"].float() - adapted.float())
        values["safe"] = values["safety"]
        wanted = INPUTS[self.method]
        if not set(wanted) <= values.keys():
            return adapted
        models = {name: values[name].float() for name in wanted}
        merged: Tensor = METHODS[self.method].merge(
            models, values["base"].float(), self.weights, site=entry.pair.site.key, **self.parameters
        )
        return merged.to(adapted.dtype)


def settings(method: str) -> Iterator[Setting]:
    """The settings that a method is tuned over: about as many as the coarse uniform grid has points, or fewer."""
    if method == "task_arithmetic":
        for adapted, safety in product((0.25, 0.5, 0.75, 1.0), (0.25, 0.5, 0.75)):
            yield Setting(method, weights={"adapted": adapted, "safety": safety})
    elif method == "ties":
        for density, scale in product((0.2, 0.5), (0.6, 0.8, 1.0)):
            yield Setting(method, {"density": density, "lambda": scale})
    elif method == "dare_linear":
        for density, safety in product((0.3, 0.7), (0.2, 0.4, 0.6)):
            yield Setting(method, {"density": density}, {"adapted": 1 - safety, "safety": safety})
    elif method == "safelora":
        yield from (Setting(method, {"tau": tau}) for tau in (0.1, 0.2, 0.3, 0.4, 0.5, 0.7))
    elif method == "safemerge":
        for tau, share in product((0.2, 0.4, 0.7), (0.3, 0.6)):
            yield Setting(method, {"tau": tau, "share": share})
    elif method == "resta":
        yield from (Setting(method, {"gamma": gamma}) for gamma in (0.1, 0.25, 0.5, 0.75, 1.0))
