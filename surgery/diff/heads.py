"""Which entries of a projection belong to which attention head, and which of a stack to which expert."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.naming import FUSED, IN_TURNS, TEXT_CONFIGS, WIDTHS, split_leaf
from vlsurgery.surgery.architecture.site import Site

HEADS: Final = ("num_attention_heads", "n_head", "n_heads", "num_heads")
KV_HEADS: Final = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "n_head_kv", "multi_query_group_num")
HEAD_WIDTHS: Final = ("head_dim", "kv_channels")
# Fused projections that hold the query heads of a group, then its key and its value, group by group.
BY_GROUPS: Final = ("wqkv",)
VISION_CONFIGS: Final = ("vision_config", "vision_tower_config", "vision_cfg")


@dataclass(frozen=True)
class HeadLayout:
    """How a tensor divides into attention heads or experts, which are measured one by one.

    kind: what the parts are; "whole" where there are none. count: how many. columns: whether a part is a range of
    columns; otherwise it is a range of rows. heads: of a fused projection, for every part q, k or v and the head's
    number there. why: the reason why a tensor that should have parts has none.
    """

    kind: Literal["whole", "heads", "experts"] = "whole"
    count: int = 1
    columns: bool = False
    heads: tuple[tuple[str, int], ...] = ()
    why: str | None = None

    def unit(self, shape: Shape) -> int:
        """Entries that are never divided between two tasks: of a head, an expert, or a row where heads are columns."""
        return shape[-1] if self.columns else 1 if self.kind == "whole" else max(1, math.prod(shape) // self.count)


def head_layout(site: Site, shape: Shape, name: str, config: Mapping[str, Any] | None) -> HeadLayout:
    """How the tensor of a site divides.

    shape: of what the checkpoints share. name: its raw name, which tells the order inside a fused projection. config:
    of the checkpoint that the numbers of heads are taken from.
    """
    if len(shape) == 3 and "expert" in site.component.partition(".")[0]:
        return HeadLayout("experts", shape[0])
    word = site.component.rpartition(".")[2]
    if len(shape) != 2 or ".attn." not in f".{site.component}" or word not in ("q", "k", "v", "o", "qkv"):
        return HeadLayout()
    facts = HeadCounts.of(site, config)
    if facts is None:
        return HeadLayout(why="the config does not say how many heads there are")
    if word == "qkv":
        return _fused(shape, name, facts)
    count = facts.kv_heads if word in ("k", "v") else facts.heads
    extent = shape[1] if word == "o" else shape[0]
    if extent % count or (facts.width is not None and extent != count * facts.width):
        side = "columns" if word == "o" else "rows"
        sizes = "" if facts.width is None else f" of {facts.width}"
        return HeadLayout(why=f"{extent} {side} are not the config's {count} heads{sizes}")
    return HeadLayout("heads", count, columns=word == "o")


@dataclass(frozen=True)
class HeadCounts:
    """Numbers of query and of key-value heads, and a head's width where the config states it."""

    heads: int
    kv_heads: int
    width: int | None

    @classmethod
    def of(cls, site: Site, config: Mapping[str, Any] | None) -> "HeadCounts | None":
        """The numbers of the site's tower by a config; None where the config does not state them."""
        own: Mapping[str, Any] = config or {}
        for key in TEXT_CONFIGS if site.tower == "text" else VISION_CONFIGS if site.tower == "vision" else ():
            if isinstance(own.get(key), Mapping):
                own = own[key]
        heads = _first_count(own, HEADS)
        if heads is None or site.tower not in ("text", "vision") or (site.tower == "vision" and own is config):
            return None
        total = _first_count(own, WIDTHS)
        width = _first_count(own, HEAD_WIDTHS) or (total // heads if total and not total % heads else None)
        return cls(heads, _first_count(own, KV_HEADS) or heads, width)


def _fused(shape: Shape, name: str, facts: HeadCounts) -> HeadLayout:
    word = split_leaf(name)[0].rpartition(".")[2]
    rows = facts.heads + 2 * facts.kv_heads
    if FUSED.get(word) != ("q", "k", "v") or word in IN_TURNS or word in BY_GROUPS:
        return HeadLayout(why=f"nothing tells in which order {word} holds q, k and v")
    if shape[0] % rows or (facts.width is not None and shape[0] != rows * facts.width):
        return HeadLayout(why=f"{shape[0]} rows are not q, k and v of {facts.heads} and {facts.kv_heads} heads")
    counts = (("q", facts.heads), ("k", facts.kv_heads), ("v", facts.kv_heads))
    return HeadLayout("heads", rows, heads=tuple((part, head) for part, count in counts for head in range(count)))


def _first_count(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((config[key] for key in keys if isinstance(config.get(key), int) and config[key] > 0), None)
