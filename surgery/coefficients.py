"""How much of which checkpoint goes where: the coefficients of a merge, and the plain policies that make them."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Final, Literal

from surgery.anatomy import Site
from surgery.errors import RecipeError

DEFAULT: Final = "default"
Toward = Literal["base", "safety", "both"]

# What a key can be: "default", a layer, a block, a component, or a site's own key.
_KEY: Final = re.compile(
    r"default|\d+|\d+\.(attn|mlp)|embed|head|norm|projector|vision"
    r"|(text|vision|audio|projector|other)\..+"
    r"|((attn|cross_attn|linear_attn|mlp|experts?|vision_experts?|vision_router|norm)\..+|pos_embed|raw:.+)"
    r"|(embed|head|pos_embed)\.bias|vision_router|embed\.new"
)


class Coefficients(Mapping[str, Mapping[str, float]]):
    """Key -> {role: coefficient}, as recipes spell it. The most specific key that fits a site wins, whole:

    1. the site: "text.3.mlp.gate", "text.embed", "vision.0.attn.q"
    2. the block: "3.mlp", "embed", "head", "norm", "projector", "vision"
    3. the component, in every layer: "mlp.gate"
    4. the layer: "3"
    5. "default"

    Layers, components and the default speak of the text tower alone. What lies outside of it stays the adapted
    model's unless its own site or block is named. Coefficients are in [0, 1]; they need not sum to 1.
    """

    def __init__(self, table: Mapping[str, Mapping[str, float]]) -> None:
        self._table = {key: dict(shares) for key, shares in table.items()}
        for key, shares in self._table.items():
            if not _KEY.fullmatch(key):
                raise RecipeError(
                    f"coefficient {key!r}: no such key. Name a site (text.3.mlp.gate), a block (3.mlp, embed), "
                    "a component (mlp.gate), a layer (3), or default."
                )
            for role, share in shares.items():
                if not (math.isfinite(share) and 0 <= share <= 1):
                    raise RecipeError(f"coefficient {key}.{role}: {share} is not between 0 and 1.")

    def __getitem__(self, key: str) -> Mapping[str, float]:
        return self._table[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)

    def __repr__(self) -> str:
        return f"Coefficients({self._table!r})"

    def resolve(self, site: Site) -> dict[str, float]:
        """The coefficients of one site, role -> share; empty where no key fits."""
        return dict(next((self._table[key] for key in keys_of(site) if key in self._table), {}))

    def plain(self) -> dict[str, dict[str, float]]:
        return {key: dict(shares) for key, shares in self._table.items()}


def keys_of(site: Site) -> tuple[str, ...]:
    """Every key that fits a site, the most specific first."""
    named = (site.key,) if site.block is None else (site.key, site.block)
    if site.tower != "text":
        return named
    layer = () if site.layer is None else (str(site.layer),)
    return (*named, site.component, *layer, DEFAULT)


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
