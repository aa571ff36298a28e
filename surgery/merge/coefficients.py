"""Coefficients of a merge: how much of which checkpoint goes into which block or site."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.recipe_keys import at, check_key, rows_of

Coefficient = float | Sequence[float]

MAX_KEYS: Final = 100_000  # more than the sites of the largest models with experts


class Coefficients(dict[str, Mapping[str, Coefficient]]):
    """Key -> {role: coefficient}, as recipes spell it. Of the keys that fit a site (`recipe_keys.keys_of`) the most
    specific one decides for every role: a role that it does not name has none.

    What lies outside of the text tower keeps the bytes of `like` unless its own site or block is named, or
    `everywhere`. A coefficient may be a list along the layers (`recipe_keys.at`). Coefficients lie in [low, high],
    which is checked when the table is made; they need not sum to 1.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Coefficient]], low: float = 0.0, high: float = 1.0) -> None:
        if len(table) > MAX_KEYS:
            raise RecipeError(
                f"coefficients: {len(table)} keys, more than {MAX_KEYS}. Name components, layers or blocks in place of "
                "sites."
            )
        super().__init__(table)
        for key, row in table.items():
            check_key(key)
            for role, coefficient in row.items():
                check_range(f"coefficient {key}.{role}", coefficient, low, high)

    def resolve(self, site: Site, depth: int = 1) -> dict[str, float]:
        """Role -> coefficient at one site; empty where no key fits. depth: layers of the site's tower."""
        row = next(rows_of(self, site), {})
        return {role: at(coefficient, site, depth) for role, coefficient in row.items()}


def check_range(what: str, value: float | Sequence[float], low: float, high: float) -> None:
    """Raise RecipeError for a number, or a list of numbers, that is not finite or lies outside of [low, high]."""
    numbers = value if isinstance(value, Sequence) else [value]
    if not numbers:
        raise RecipeError(f"{what}: an empty list.")
    for number in numbers:
        if not (math.isfinite(number) and low <= number <= high):
            bounds = f"between {low:g} and {high:g}" if math.isfinite(high) else f"{low:g} or more"
            raise RecipeError(f"{what}: {number} is not {bounds}.")
