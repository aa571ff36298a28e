"""How the weights of a live merge's blocks divide into sites, attention heads and experts, so that a block's slope can
be told part by part: the parts of a block are disjoint, and their slopes sum to its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.merge_parameters import MergeParameter
from vlsurgery.surgery.alignment import Aligned, Alignment
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.diff.heads import HeadCounts, HeadLayout, head_layout

EXPERTS: Final = "experts"  # the site of all of a layer's routed experts, however the files hold them


class WeightPart(NamedTuple):
    """One part of a block. site: the component; "experts" for the weights of routed experts together.

    head: number of an attention head (query heads in q and o, key-value heads in k and v) or of an expert; None for
    what is not told apart any further.
    """

    block: str
    site: str
    head: int | None = None


class HeadParts(NamedTuple):
    """Which part each row, or each column, of a matrix belongs to. labels: [rows] or [columns] positions of parts."""

    labels: Tensor
    columns: bool


@dataclass(frozen=True)
class WeightParts:
    """The parts of a live merge's blocks.

    parts: in the order of the columns of slopes. block: [parts] position of each one's block. whole: per entry of the
    live merge the part that takes its slope where it is not divided. heads: the same where it is, by attention head.
    experts: position of a block -> [experts] parts of its routed experts.
    """

    parts: tuple[WeightPart, ...]
    block: NDArray[np.int64]
    whole: dict[int, int]
    heads: dict[int, HeadParts]
    experts: dict[int, Tensor]

    @classmethod
    def blocks(cls, live: InMemoryMerge) -> "WeightParts":
        """Every block as one part."""
        parts = tuple(WeightPart(block, "") for block in live.blocks)
        whole = {id(entry): entry.block for entry in live.entries}
        return cls(parts, np.arange(len(parts)), whole, {}, {})

    @classmethod
    def finest(cls, live: InMemoryMerge) -> "WeightParts":
        """Sites, and heads and experts inside of them where the checkpoint's config tells how many there are."""
        made = _Making(live)
        for entry in live.entries:
            made.add(entry)
        block = np.array([live.blocks.index(part.block) for part in made.parts], np.int64)
        return cls(tuple(made.parts), block, made.whole, made.heads, made.experts)

    def of_experts(self, part: int) -> Tensor | None:
        """[experts] the parts of each routed expert, where `part` is all of a layer's; else None."""
        return self.experts.get(int(self.block[part])) if self.parts[part].site == EXPERTS else None

    def of_blocks(self, slopes: Tensor, blocks: int) -> Tensor:
        """[prompts, blocks, sources] sums over each block's parts. slopes: [prompts, parts, sources]."""
        out = torch.zeros(slopes.shape[0], blocks, slopes.shape[2], dtype=slopes.dtype)
        return out.index_add_(1, torch.tensor(self.block), slopes)  # a copy: another process's array is read-only

    def summed(self, values: NDArray[np.float64], blocks: int) -> NDArray[np.float64]:
        """[prompts, blocks] sums over each block's parts. values: [prompts, parts]."""
        return self.of_blocks(torch.from_numpy(values)[..., None], blocks)[..., 0].numpy()


class _Making:
    """Parts as they are found, one entry after the other."""

    def __init__(self, live: InMemoryMerge) -> None:
        self._live = live
        self.parts: dict[WeightPart, int] = {}
        self.whole: dict[int, int] = {}
        self.heads: dict[int, HeadParts] = {}
        self.experts: dict[int, Tensor] = {}

    def add(self, entry: MergeParameter) -> None:
        block, site = self._live.blocks[entry.block], entry.pair.site
        name = EXPERTS if is_routed(site) else site.component
        self.whole[id(entry)] = self._at(WeightPart(block, name))
        if is_routed(site):
            count = int(site.component.split(".")[1]) + 1 if site.component.startswith("expert.") else _stacked(entry)
            if entry.block not in self.experts or len(self.experts[entry.block]) < count:
                self.experts[entry.block] = torch.tensor([self._at(WeightPart(block, name, e)) for e in range(count)])
            return
        layout = layout_of(self._live.alignment, self._live.like, entry.pair)
        if layout.kind == "heads" and entry.is_rows:
            self.heads[id(entry)] = self._heads(block, site, entry.pair.shape, layout)

    def _heads(self, block: str, site: Site, shape: Sequence[int], layout: HeadLayout) -> HeadParts:
        fused = site.component.removesuffix("qkv")
        named = [(f"{fused}{part}", head) for part, head in layout.heads] or [
            (site.component, head) for head in range(layout.count)
        ]
        labels = torch.tensor([self._at(WeightPart(block, *name)) for name in named])
        extent = shape[1] if layout.columns else shape[0]
        return HeadParts(labels.repeat_interleave(extent // layout.count), layout.columns)

    def _at(self, part: WeightPart) -> int:
        return self.parts.setdefault(part, len(self.parts))


def layout_of(alignment: Alignment, like: str, pair: Aligned) -> HeadLayout:
    """How a pair divides into heads, by the config of the live model's own checkpoint."""
    return head_layout(pair.site, pair.shape, pair.parts[like].name, alignment.checkpoints[like].config)


def own_key_values(alignment: Alignment, like: str) -> bool:
    """Whether each query head of the language model has a key and a value of its own, so that neither is shared."""
    found = HeadCounts.of(Site("text", 0, "attn.q"), alignment.checkpoints[like].config)
    return found is not None and found.heads == found.kv_heads


def is_routed(site: Site) -> bool:
    """Whether a site holds weights of routed experts: stacked, or one expert's."""
    first, _, rest = site.component.partition(".")
    return first == "experts" or (first == "expert" and rest.split(".")[0].isdecimal())


def _stacked(entry: MergeParameter) -> int:
    """The number of experts in a stack of them."""
    return entry.pair.shape[0]
