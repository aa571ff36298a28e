"""Keys of a recipe: which sites a key names, which keys fit a site, and what a value is at one layer."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeVar

from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.runtime.excerpts import excerpt

Row = TypeVar("Row")

DEFAULT: Final = "default"
EVERYWHERE: Final = "everywhere"

# A layer, a block, a component, a site's own key, or one of the two words above.
_KEY: Final = re.compile(
    r"default|everywhere|\d+|\d+\.(attn|mlp|other)|embed|head|norm|projector|vision"
    r"|(text|vision|audio|projector|other)\..+"
    r"|((attn|cross_attn|linear_attn|mlp|experts?|vision_experts?|vision_router|norm)\..+|pos_embed|raw:.+)"
    r"|(embed|head|pos_embed)\.bias|vision_router|embed\.new"
)

# Components behind the layers; every other component outside of the layers stands in front of them.
_BEHIND_LAYERS: Final = ("head", "norm")


def check_key(key: str, what: str = "coefficient") -> None:
    """Raise RecipeError for what is no key."""
    if not _KEY.fullmatch(key):
        raise RecipeError(
            f"{what} {excerpt(key)}: no such key. Name a site (text.3.mlp.gate), a block (3.mlp, embed), a component "
            "(mlp.gate), a layer (3), default (the language model), or everywhere (all towers)."
        )


def keys_of(site: Site) -> tuple[str, ...]:
    """Every key that fits a site, the most specific first:

    1. the site: "text.3.mlp.gate", "text.embed", "vision.0.attn.q"
    2. the block: "3.mlp", "3.other", "embed", "head", "norm", "projector", "vision"
    3. the component, in every layer: "mlp.gate"
    4. the layer: "3"
    5. "default"
    6. "everywhere"

    Layer, component and default fit sites of the text tower only.
    """
    named = (site.key,) if site.block is None else (site.key, site.block)
    if site.tower != "text":
        return (*named, EVERYWHERE)
    layer = () if site.layer is None else (str(site.layer),)
    return (*named, site.component, *layer, DEFAULT, EVERYWHERE)


def rows_of(table: Mapping[str, Row], site: Site) -> Iterator[Row]:
    """What a table says under the keys that fit a site, the most specific first."""
    return (table[key] for key in keys_of(site) if key in table)


def tower_depths(sites: Iterable[Site]) -> dict[str, int]:
    """Tower -> how many layers it has; 0 where all of its sites lie outside of layers."""
    depths: dict[str, int] = {}
    for site in sites:
        depths[site.tower] = max(depths.get(site.tower, 0), 0 if site.layer is None else site.layer + 1)
    return depths


def at(value: float | Sequence[float], site: Site, depth: int) -> float:
    """The number that holds at one site, where `value` may be a list of numbers along the layers.

    depth: how many layers the site's tower has. The first number is the first layer's, the last number the last
    layer's, and layers between are interpolated linearly: a list as long as there are layers gives each its own. What
    stands in front of the layers (embedding) has the first number, what stands behind them (final norm, head) the last.
    """
    if not isinstance(value, Sequence):
        return float(value)
    if site.layer is None:
        return float(value[-1 if site.component.split(".")[0] in _BEHIND_LAYERS else 0])
    return interpolate(value, site.layer * (len(value) - 1) / (depth - 1) if depth > 1 else 0.0)


def interpolate(values: Sequence[float], position: float) -> float:
    """The value at a position between 0 and len(values) - 1, on the straight line between its neighbours."""
    before = min(int(position), len(values) - 1)
    fraction = position - before
    if not fraction:
        return float(values[before])
    return (1 - fraction) * values[before] + fraction * values[before + 1]
