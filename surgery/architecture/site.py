"""The place of a tensor in a model, whatever its name."""

from typing import Final, NamedTuple, get_args

from vlsurgery.surgery.architecture import naming
from vlsurgery.surgery.results import Tower

TOWERS: Final[tuple[Tower, ...]] = get_args(Tower)
RANKS: Final = {tower: rank for rank, tower in enumerate(TOWERS)}


class Site(NamedTuple):
    """The place of a tensor in a model, whatever its name.

    tower: text, vision, audio, projector or other. layer: the base's number, from 0; None outside of layers.
    component: SCHEMAS, "Names". own_layer: the number of a layer that adaptation inserted, in the model that has it;
    its `layer` is None.
    Sites sort by tower, then layer (none first), then component, inserted layers behind the others.
    """

    tower: Tower
    layer: int | None
    component: str
    own_layer: int | None = None

    @property
    def key(self) -> str:
        """The site as recipes spell it: "text.3.mlp.gate", "text.embed", "vision.0.attn.q.bias"."""
        if self.own_layer is not None:
            return f"{self.tower}.added.{self.own_layer}.{self.component}"
        layer = "" if self.layer is None else f"{self.layer}."
        return f"{self.tower}.{layer}{self.component}"

    @property
    def block(self) -> str | None:
        """Its block: "3.attn", "3.mlp", "3.other", "embed", "head", "norm", "projector", "vision"; else None.

        Every site of the text tower has one, but for those of layers that adaptation inserted.
        """
        if self.tower in ("vision", "projector"):
            return self.tower
        if self.tower != "text" or self.own_layer is not None:
            return None
        if self.layer is not None:
            return f"{self.layer}.{naming.block_kind(self.component)}"
        return naming.block_beside(self.component)

    def __lt__(self, other: tuple[object, ...]) -> bool:
        return isinstance(other, Site) and self.order < other.order

    @property
    def order(self) -> tuple[int, int, int, str]:
        """Sort key of sites, faster than comparing them."""
        layer = -1 if self.layer is None else self.layer
        return RANKS[self.tower], -1 if self.own_layer is None else self.own_layer, layer, self.component
