"""What a recipe calls a set of sites, and which of several names counts for one of them."""

import re
from collections.abc import Sequence
from typing import Final

from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import RecipeError

DEFAULT: Final = "default"
EVERYWHERE: Final = "everywhere"

# What a key can be: a layer, a block, a component, a site's own key, or one of the two words above.
_KEY: Final = re.compile(
    r"default|everywhere|\d+|\d+\.(attn|mlp)|embed|head|norm|projector|vision"
    r"|(text|vision|audio|projector|other)\..+"
    r"|((attn|cross_attn|linear_attn|mlp|experts?|vision_experts?|vision_router|norm)\..+|pos_embed|raw:.+)"
    r"|(embed|head|pos_embed)\.bias|vision_router|embed\.new"
)

# What stands behind the layers; everything else outside of them stands in front.
_LAST: Final = ("head", "norm")


def check_key(key: str, what: str = "coefficient") -> None:
    """Raise RecipeError for what is no key."""
    if not _KEY.fullmatch(key):
        raise RecipeError(
            f"{what} {key!r}: no such key. Name a site (text.3.mlp.gate), a block (3.mlp, embed), a component "
            "(mlp.gate), a layer (3), default (the language model), or everywhere (all towers)."
        )


def keys_of(site: Site) -> tuple[str, ...]:
    """Every key that fits a site, the most specific first:

    1. the site: "text.3.mlp.gate", "text.embed", "vision.0.attn.q"
    2. the block: "3.mlp", "embed", "head", "norm", "projector", "vision"
    3. the component, in every layer: "mlp.gate"
    4. the layer: "3"
    5. "default"
    6. "everywhere"

    Layers, components and the default speak of the text tower alone.
    """
    named = (site.key,) if site.block is None else (site.key, site.block)
    if site.tower != "text":
        return (*named, EVERYWHERE)
    layer = () if site.layer is None else (str(site.layer),)
    return (*named, site.component, *layer, DEFAULT, EVERYWHERE)


def at(value: float | Sequence[float], site: Site, depth: int) -> float:
    """A number that may be a list of numbers along the layers, at one site.

    depth: how many layers the site's tower has. The list's first number is the first layer's, its last one the last
    layer's, and between them it is interpolated: a list as long as there are layers gives each its own. What stands in
    front of the layers (the embedding) has the first number, what stands behind them (final norm, head) the last.
    """
    if not isinstance(value, Sequence):
        return float(value)
    if site.layer is None:
        return float(value[-1 if site.component.split(".")[0] in _LAST else 0])
    return interpolate(value, site.layer * (len(value) - 1) / (depth - 1) if depth > 1 else 0.0)


def interpolate(values: Sequence[float], place: float) -> float:
    """The value at a place in a list, on the straight line between its neighbours. place: 0 to len(values) - 1."""
    before = min(int(place), len(values) - 1)
    fraction = place - before
    if not fraction:
        return float(values[before])
    return (1 - fraction) * values[before] + fraction * values[before + 1]
