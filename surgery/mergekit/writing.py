"""Our recipe in, mergekit's YAML out."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, Final

import yaml

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.recipe_keys import tower_depths
from vlsurgery.surgery.mergekit.methods import PER_MODEL, TAKEN, Scalar
from vlsurgery.surgery.methods import METHODS
from vlsurgery.surgery.runtime.urls import is_url

HEAD: Final = "# For mergekit 0.1.5: mergekit-yaml FILE OUT\n"
_RANDOM: Final = (
    "# It draws other entries than `vlsurgery merge` does, and scales what is kept to the L1 norm of the delta rather\n"
    "# than by 1 over the chance: the same in expectation, not entry by entry.\n"
)


def write_mergekit(recipe: Recipe) -> str:
    """The YAML with which mergekit 0.1.5 merges to the same numbers, as far as the package's docstring says.

    `blend` becomes task_arithmetic from `like`. Opens the checkpoints for their tensors' names; reads no weights.

    Raises RecipeError that names what mergekit can't do: the method, a base that the result is not like, a tensor that
    a model lacks or has under another name or shape.
    """
    method = "task_arithmetic" if recipe.method == "blend" else recipe.method
    if method not in TAKEN:
        raise RecipeError(f"method: mergekit 0.1.5 has no {recipe.method!r}.")
    if recipe.origin not in (None, recipe.like):
        raise RecipeError(
            f"like: {recipe.like!r}; mergekit's result is like the base of the deltas, here {recipe.origin!r}."
        )
    return _Export(recipe, method, {role: Checkpoint.reopen(ref) for role, ref in recipe.checkpoints.items()}).text()


@dataclass(frozen=True)
class _Export:
    """A recipe, the method's name in mergekit, and the open checkpoints, role -> checkpoint."""

    recipe: Recipe
    method: str
    checkpoints: Mapping[str, Checkpoint]

    def text(self) -> str:
        self._check()
        taken = TAKEN[self.method]
        each = [name for name in taken if name in PER_MODEL]
        known = {"t", *METHODS[self.method].parameters}
        shared = {name: self._setting(name) for name in taken if name in known and name not in each}
        models: list[dict[str, Any]] = []
        for role in self.roles:
            own = {name: self._setting(name, role) for name in each}
            models.append({"model": self._reference(role)} | ({"parameters": own} if own else {}))
        data = {"models": models, "merge_method": self.method, "base_model": self._reference(self.recipe.like)}
        data |= ({"parameters": shared} if shared else {}) | {"dtype": "float32", "out_dtype": self._dtype()}
        body = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
        return HEAD + (_RANDOM if self.method.startswith(("dare", "della")) else "") + body

    @property
    def like(self) -> Checkpoint:
        return self.checkpoints[self.recipe.like]

    @cached_property
    def values(self) -> dict[str, dict[str, Any]]:
        """Raw name -> parameter -> value, or role -> value. Where no key speaks of a tensor, it stays that of `like`;
        slerp's t is the coefficient of its only model."""
        sites = self.like.sites
        depths = tower_depths(sites.values())
        coefficients, parameters = self.recipe.resolved_coefficients, self.recipe.resolved_parameters
        untouched = {} if self.recipe.origin is not None else {self.recipe.like: 1.0}
        found: dict[str, dict[str, Any]] = {}
        for name, site in sites.items():
            given = coefficients.resolve(site, depths[site.tower]) or untouched
            weights = {role: given.get(role, 0.0) for role in self.recipe.models}
            found[name] = {**TAKEN[self.method], "weight": weights, "t": next(iter(weights.values()), 0.0)}
            found[name] |= parameters.resolve(site, depths[site.tower])
        return found

    @cached_property
    def roles(self) -> list[str]:
        """The models that go in anywhere, or all where none does; without a base of deltas `like` too, since mergekit
        wants it among them."""
        used = {role for row in self.values.values() for role, weight in row["weight"].items() if weight}
        if used and not METHODS[self.method].needs_base:
            used.add(self.recipe.like)
        return [role for role in self.recipe.models if not used or role in used]

    def _setting(self, parameter: str, role: str | None = None) -> Any:
        """A parameter of all models, or of one, as YAML holds it."""
        values = {name: row[parameter] for name, row in self.values.items()}
        return filters(values if role is None else {name: each[role] for name, each in values.items()})

    def _reference(self, role: str) -> Any:
        """A model as mergekit reads it; as a mapping where the signs that it splits text by belong to a name."""
        path = self.recipe.checkpoints[role].path
        if is_url(path):
            raise RecipeError(
                f"checkpoints.{role}: {path} is a URL, and mergekit reads directories and the Hub alone. Copy it to a "
                "directory, and put that into the recipe."
            )
        if os.path.exists(path):
            return {"model": {"path": path}} if set(path) & {"+", "@"} else path
        base, plus, adapter = path.rpartition("+")
        if plus and "@" in path and os.path.exists(base):
            return {"model": {"path": base}, "lora": {"path": adapter}}
        return path

    def _dtype(self) -> str:
        """What mergekit is to store: it knows one dtype for all tensors."""
        if self.recipe.dtype != "as like":
            return self.recipe.dtype
        most = Counter(tensor.dtype_name for tensor in self.like.values()).most_common(1)[0][0]
        for name, tensor in self.like.items():
            if not tensor.is_float or tensor.dtype_name != most:
                raise RecipeError(
                    f"dtype: {self.recipe.like} stores {name!r} as {tensor.dtype_name} and most as {most}, and "
                    "mergekit writes one dtype. Give the recipe a dtype, if all may have it."
                )
        return most

    def _check(self) -> None:
        """Raise RecipeError for what mergekit can't do: it pairs tensors by their raw names and wants one shape."""
        if not {"weight", "t"} & TAKEN[self.method].keys():
            for name, row in self.values.items():
                if any(row["weight"][role] != 1 for role in self.roles):
                    raise RecipeError(f"coefficients: mergekit's {self.method} takes every model whole, {name!r} too.")
        for role, (name, tensor) in product(self.roles, self.like.items()):
            other = self.checkpoints[role].get(name)
            if other is None:
                raise RecipeError(
                    f"{role} has no tensor {name!r} as {self.recipe.like} has; mergekit pairs tensors by their names "
                    "and can't merge these two."
                )
            if other.shape != tensor.shape:
                raise RecipeError(
                    f"{name!r} has shape {other.shape} in {role} and {tensor.shape} in {self.recipe.like}; mergekit "
                    "wants one shape."
                )


def filters(values: Mapping[str, Scalar]) -> Any:
    """A setting, as YAML holds it, that gives each raw name its value: one value, or a filter by whole name for each
    tensor that differs from the commonest value.

    mergekit takes the first filter that is a part of a tensor's name: longer names come first, and a name that contains
    a filtered one has a filter of its own.
    """
    common = Counter(values.values()).most_common(1)[0][0]
    other = [name for name, value in values.items() if value != common]
    if not other:
        return common
    lengths, filtered = {len(name) for name in other}, set(other)

    def contains_a_filtered_name(name: str) -> bool:
        windows = (name[at : at + size] for size in lengths if size < len(name) for at in range(len(name) - size + 1))
        return not filtered.isdisjoint(windows)

    named = {*other, *filter(contains_a_filtered_name, values)}
    cases = [{"filter": name, "value": values[name]} for name in sorted(named, key=len, reverse=True)]
    return [*cases, {"value": common}]
