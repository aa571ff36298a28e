"""What a recipe asks of each tensor: which parts of it change, by which models, with which settings."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.keys import keys_of
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.methods import Settings


@dataclass(frozen=True)
class SiteMerge:
    """A tensor that changes, or a part of one: the pair that it is in, and what the method is told about it. The
    settings' weights name the models that take part; without one, the result is the origin's own tensor."""

    pair: Aligned
    settings: Settings


@dataclass(frozen=True)
class MergePlan:
    """jobs: name of a tensor in `like` -> what is done with its parts; tensors that keep their bytes are not in it.
    lacking: role -> in how many sites that were to be merged it has no tensor; those keep the bytes of `like`."""

    sites: Mapping[str, list[SiteMerge]]
    lacking: Mapping[str, int]


def plan_merge(recipe: Recipe, alignment: Alignment) -> MergePlan:
    """What is to be done.

    Raises RecipeError when a key with a share fits no tensor that its role has, or one without a share no tensor at
    all (a typo must neither merge nothing nor leave alone what it did not name), and when a method can't work with the
    models that a site has a weight for.
    """
    table, parameters = recipe.resolved_coefficients, recipe.settings
    depths = _depths(alignment)
    sites: dict[str, list[SiteMerge]] = {}
    used: set[tuple[str, str]] = set()
    lacking: Counter[str] = Counter()
    for pair in alignment.pairs:
        used |= {(key, role) for key in keys_of(pair.site) for role in pair.parts}
        depth = depths.get(pair.site.tower, 1)
        shares = table.resolve(pair.site, depth)
        weights = {role: shares[role] for role in sorted(shares) if shares[role]}
        if recipe.method == "blend":
            weights = {role: weight for role, weight in weights.items() if role in pair.parts}
        if not shares or (not weights and recipe.origin == recipe.like):
            continue
        missing = [role for role in (*weights, recipe.origin) if role is not None and role not in pair.parts]
        if missing:
            lacking.update(missing)
            continue
        _check_count(recipe, pair.site, weights)
        settings = Settings(weights, parameters.resolve(pair.site, depth))
        sites.setdefault(pair.parts[recipe.like].name, []).append(SiteMerge(pair, settings))
    shared = {key for pair in alignment.pairs for key in keys_of(pair.site)}
    for key in recipe.parameters:
        if key not in shared:
            raise RecipeError(f"parameter {key}: fits no tensor that {recipe.like} shares with another. {_NAMES}")
    for key, asked in table.items():
        for role, share in asked.items():
            if (key, role) not in used and (share or key not in _keys(alignment)):
                raise RecipeError(
                    f"coefficient {key}.{role}: fits no tensor that {recipe.like} shares with {role}. {_NAMES}"
                )
    return MergePlan(sites, lacking)


_NAMES: Final = "`vlsurgery anatomy` shows a checkpoint's layers, blocks and sites by name."


def _keys(alignment: Alignment) -> set[str]:
    """Every key that fits a tensor of `like`, shared with another or not."""
    like = alignment.checkpoints[alignment.like]
    sites = [*identify(like.shapes, like.config).values(), *(pair.site for pair in alignment.pairs)]
    return {key for site in sites for key in keys_of(site)}


def _depths(alignment: Alignment) -> dict[str, int]:
    """How many layers each tower has."""
    depths: dict[str, int] = {}
    for pair in alignment.pairs:
        if pair.site.layer is not None:
            depths[pair.site.tower] = max(depths.get(pair.site.tower, 0), pair.site.layer + 1)
    return depths


def _check_count(recipe: Recipe, site: Site, weights: Mapping[str, float]) -> None:
    if not weights and recipe.origin is None:
        raise RecipeError(f"coefficients at {site.key}: all weights are 0, so nothing is left of the tensor.")
    fewest, _ = recipe.merge_method.models
    if 0 < len(weights) < fewest:
        raise RecipeError(
            f"coefficients at {site.key}: {recipe.method} needs {fewest} models or more, and only "
            f"{', '.join(weights)} has a weight."
        )
