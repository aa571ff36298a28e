"""Our recipe in, mergekit's YAML out."""

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import yaml

from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.keys import tower_depths
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.mergekit.methods import OFF, TAKEN, Scalar, Taken

_HEAD: Final = "# For mergekit 0.1.5: mergekit-yaml FILE OUT\n"
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
    return _Export(recipe, {role: Checkpoint.reopen(ref) for role, ref in recipe.checkpoints.items()}).text()


@dataclass(frozen=True)
class _Export:
    """A recipe and its open checkpoints, role -> checkpoint."""

    recipe: Recipe
    checkpoints: Mapping[str, Checkpoint]

    def text(self) -> str:
        self._check()
        data: dict[str, Any] = {"models": [self._model(role) for role in self.roles], "merge_method": self.method}
        data["base_model"] = _reference(self.recipe.checkpoints[self.recipe.like].path)
        shared = {name: self._spelt(partial(self._shared, name)) for name in self._shared_names()}
        if shared:
            data["parameters"] = shared
        data |= {"dtype": "float32", "out_dtype": self._dtype()}
        body = yaml.safe_dump(data, sort_keys=False, default_flow_style=None, width=120, allow_unicode=True)
        return _HEAD + (_RANDOM if self.method.startswith(("dare", "della")) else "") + body

    @property
    def method(self) -> str:
        return "task_arithmetic" if self.recipe.method == "blend" else self.recipe.method

    @property
    def taken(self) -> Taken:
        return TAKEN[self.method]

    @property
    def like(self) -> Checkpoint:
        return self.checkpoints[self.recipe.like]

    @cached_property
    def sites(self) -> dict[str, Site]:
        return identify(self.like.shapes, self.like.config)

    @cached_property
    def depths(self) -> dict[str, int]:
        """Tower -> how many layers it has."""
        return tower_depths(self.sites.values())

    @cached_property
    def weights(self) -> dict[str, dict[str, float]]:
        """Raw name -> role -> weight. What no key speaks of keeps the tensor of `like`."""
        table, untouched = (
            self.recipe.resolved_coefficients,
            {} if self.recipe.origin is not None else {self.recipe.like: 1.0},
        )
        return {name: table.resolve(site, self.depths[site.tower]) or untouched for name, site in self.sites.items()}

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Raw name -> parameter -> value, or role -> value."""
        settings = self.recipe.resolved_parameters
        return {name: settings.resolve(site, self.depths[site.tower]) for name, site in self.sites.items()}

    @cached_property
    def roles(self) -> list[str]:
        """The models that go in anywhere, or all where none does; without a base of deltas `like` too, since mergekit
        wants it among them."""
        asked = {role for weights in self.weights.values() for role, weight in weights.items() if weight}
        if not asked:
            return self.recipe.models
        return [
            role for role in self.recipe.models if role in asked or (role == self.recipe.like and not self.taken.base)
        ]

    def _model(self, role: str) -> dict[str, Any]:
        each = {name: self._spelt(partial(self._each, name, role)) for name in self.taken.each}
        reference = _reference(self.recipe.checkpoints[role].path)
        return {"model": reference, "parameters": each} if each else {"model": reference}

    def _shared_names(self) -> list[str]:
        return [name for name in self.taken.shared if name not in OFF.get(self.method, ())]

    def _shared(self, name: str, raw: str) -> Scalar:
        """A parameter that is the same for all models, at one tensor; slerp's t is the other model's weight."""
        if name == "t":
            return self.weights[raw].get(self.recipe.models[0], 0.0)
        default = self.taken.shared[name]
        assert default is not None
        value: Scalar = self.settings[raw].get(name, default)
        return value

    def _each(self, name: str, role: str, raw: str) -> Scalar:
        if name == "weight":
            return self.weights[raw].get(role, 0.0)
        value: Scalar = self.settings[raw][name][role]
        return value

    def _spelt(self, value_of: Callable[[str], Scalar]) -> Any:
        return filters({name: value_of(name) for name in self.sites})

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
        """Raise RecipeError for what mergekit can't do."""
        recipe = self.recipe
        if self.method not in TAKEN:
            raise RecipeError(f"method: mergekit 0.1.5 has no {recipe.method!r}.")
        if recipe.origin not in (None, recipe.like):
            raise RecipeError(
                f"like: {recipe.like!r}; mergekit's result is like the base of the deltas, here {recipe.origin!r}."
            )
        if "weight" not in self.taken.each and self.method != "slerp":
            for name, weights in self.weights.items():
                if any(weights.get(role) != 1 for role in self.roles):
                    raise RecipeError(f"coefficients: mergekit's {self.method} takes every model whole, {name!r} too.")
        for role in self.roles:
            self._check_tensors(role)

    def _check_tensors(self, role: str) -> None:
        """mergekit pairs tensors by their raw names and wants one shape."""
        model = self.checkpoints[role]
        for name, tensor in self.like.items():
            if name not in model:
                raise RecipeError(
                    f"{role} has no tensor {name!r} as {self.recipe.like} has; mergekit pairs tensors by their names "
                    "and can't merge these two."
                )
            if model[name].shape != tensor.shape:
                raise RecipeError(
                    f"{name!r} has shape {model[name].shape} in {role} and {tensor.shape} in {self.recipe.like}; "
                    "mergekit wants one shape."
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


def _reference(path: str) -> Any:
    """A model as mergekit reads it; as a mapping where the signs that it splits text by belong to a name."""
    if os.path.exists(path):
        return {"model": {"path": path}} if set(path) & {"+", "@"} else path
    base, plus, adapter = path.rpartition("+")
    if plus and "@" in path and os.path.exists(base):
        return {"model": {"path": base}, "lora": {"path": adapter}}
    return path
