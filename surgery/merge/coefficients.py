"""How much of which checkpoint goes where: the coefficients of a merge, and the plain policies that make them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.keys import DEFAULT, at, check_key, keys_of

Toward = Literal["base", "safety", "both"]
Share = float | Sequence[float]


class Coefficients(Mapping[str, Mapping[str, Share]]):
    """Key -> {role: coefficient}, as recipes spell it. Of the keys that fit a site (`keys.keys_of`) the most specific
    wins, whole.

    What lies outside of the text tower stays the adapted model's unless its own site or block is named, or
    `everywhere`. A coefficient may be a list along the layers (`keys.at`). Coefficients lie in [low, high]; they need
    not sum to 1.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Share]], low: float = 0.0, high: float = 1.0) -> None:
        self._table = {key: dict(shares) for key, shares in table.items()}
        for key, shares in self._table.items():
            check_key(key)
            for role, share in shares.items():
                numbers = share if isinstance(share, Sequence) else [share]
                if not numbers:
                    raise RecipeError(f"coefficient {key}.{role}: an empty list.")
                for number in numbers:
                    check_range(f"coefficient {key}.{role}", number, low, high)

    def __getitem__(self, key: str) -> Mapping[str, Share]:
        return self._table[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"Coefficients({self._table!r})"

    def resolve(self, site: Site, depth: int = 1) -> dict[str, float]:
        """The coefficients of one site, role -> share; empty where no key fits. depth: layers of the site's tower."""
        shares = next((self._table[key] for key in keys_of(site) if key in self._table), {})
        return {role: at(share, site, depth) for role, share in shares.items()}

    def plain(self) -> dict[str, dict[str, float | list[float]]]:
        return {
            key: {role: list(share) if isinstance(share, Sequence) else share for role, share in shares.items()}
            for key, shares in self._table.items()
        }


def check_range(what: str, number: float, low: float, high: float) -> None:
    """Raise RecipeError for a number that is not finite, or outside of its range."""
    if math.isfinite(number) and low <= number <= high:
        return
    bounds = f"between {low:g} and {high:g}" if math.isfinite(high) else f"{low:g} or more"
    raise RecipeError(f"{what}: {number} is not {bounds}.")


def uniform(base: float = 0.0, safety: float = 0.0) -> Coefficients:
    """The same shares for the whole text tower."""
    return Coefficients({DEFAULT: {"base": base, "safety": safety}})


def proportional(scores: Mapping[str, float], strength: float, toward: Toward = "base") -> Coefficients:
    """Shares in proportion to each block's score; the block with the highest score gets `strength`.

    scores: block -> how much it has to give, in any unit; a score of 0 or less gives the block nothing. strength: in
    [0, 1]. toward: with "both", base and safety get half of a block's share each. Blocks without a score get 0.

    Raises RecipeError when a score is not finite.
    """
    for block, score in scores.items():
        if not math.isfinite(score):
            raise RecipeError(f"score of block {block}: {score} is not a number to be proportional to.")
    highest = max(scores.values(), default=0.0)
    roles = ("base", "safety") if toward == "both" else (toward,)
    table = {DEFAULT: {"base": 0.0, "safety": 0.0}}
    for block, score in scores.items():
        share = strength * score / highest / len(roles) if score > 0 else 0.0
        table[block] = {role: share if role in roles else 0.0 for role in ("base", "safety")}
    return Coefficients(table)
