"""The plan of a merge: which parts of which tensors change, by which models, with which settings."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.recipe_keys import keys_of, tower_depths
from vlsurgery.surgery.methods import Settings


@dataclass(frozen=True)
class SiteMerge:
    """A site that changes: a tensor, or a part of one. The settings hold the coefficients of the models that take part;
    without any, the result is the origin's own tensor."""

    pair: Aligned
    settings: Settings


@dataclass(frozen=True)
class MergePlan:
    """sites: name of a tensor in `like` -> what is merged in it; tensors that keep their bytes are not in it.
    lacking: role -> number of sites to be merged where it has no tensor; those keep the bytes of `like`."""

    sites: Mapping[str, list[SiteMerge]]
    lacking: Mapping[str, int]


def plan_merge(recipe: Recipe, alignment: Alignment) -> MergePlan:
    """Plan a merge from the recipe and the checkpoints' alignment.

    Raises RecipeError when a key fits no tensor that it could change (`_check_keys`), and when a method can't work with
    the models that have a coefficient at a site.
    """
    coefficients, parameters = recipe.resolved_coefficients, recipe.resolved_parameters
    depths = tower_depths(pair.site for pair in alignment.pairs)
    sites: dict[str, list[SiteMerge]] = {}
    lacking: Counter[str] = Counter()
    for pair in alignment.pairs:
        depth = depths[pair.site.tower]
        row = coefficients.resolve(pair.site, depth)
        used = {role: row[role] for role in sorted(row) if row[role]}
        if recipe.method == "blend":
            used = {role: coefficient for role, coefficient in used.items() if role in pair.parts}
        if not row or (not used and recipe.origin == recipe.like):
            continue
        missing = [role for role in (*used, recipe.origin) if role is not None and role not in pair.parts]
        if missing:
            lacking.update(missing)
            continue
        _check_count(recipe, pair.site, used)
        settings = Settings(used, parameters.resolve(pair.site, depth))
        sites.setdefault(pair.parts[recipe.like].name, []).append(SiteMerge(pair, settings))
    _check_keys(recipe, alignment)
    return MergePlan(sites, lacking)


_NAMES: Final = "`vlsurgery anatomy` shows a checkpoint's layers, blocks and sites by name."


def _check_keys(recipe: Recipe, alignment: Alignment) -> None:
    """Raise RecipeError for a key that fits nothing, which is a typo: a coefficient above 0 must fit a tensor that its
    role shares with `like`, a coefficient of 0 any tensor of `like`, a parameter any tensor that is shared."""
    shared = {(key, role) for pair in alignment.pairs for key in keys_of(pair.site) for role in pair.parts}
    for key in recipe.parameters:
        if (key, recipe.like) not in shared:
            raise RecipeError(f"parameter {key}: fits no tensor that {recipe.like} shares with another. {_NAMES}")
    for key, row in recipe.coefficients.items():
        for role, coefficient in row.items():
            if (key, role) not in shared and (coefficient or key not in _all_keys(alignment)):
                raise RecipeError(
                    f"coefficient {key}.{role}: fits no tensor that {recipe.like} shares with {role}. {_NAMES}"
                )


def _all_keys(alignment: Alignment) -> set[str]:
    """Every key that fits a tensor of `like`, shared with another or not."""
    like = alignment.checkpoints[alignment.like]
    sites = [*like.sites.values(), *(pair.site for pair in alignment.pairs)]
    return {key for site in sites for key in keys_of(site)}


def _check_count(recipe: Recipe, site: Site, coefficients: Mapping[str, float]) -> None:
    """Raise RecipeError where fewer models have a coefficient at a site than the method needs."""
    if not coefficients and recipe.origin is None:
        raise RecipeError(f"coefficients at {site.key}: all coefficients are 0, so nothing is left of the tensor.")
    fewest, _ = recipe.merge_method.models
    if 0 < len(coefficients) < fewest:
        raise RecipeError(
            f"coefficients at {site.key}: {recipe.method} needs {fewest} models or more, and only "
            f"{', '.join(coefficients)} has a coefficient."
        )
