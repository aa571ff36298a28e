"""Groups of tensors that repeat from layer to layer under one pattern of name, and pairs of them by name alone."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.layouts import TensorView
from vlsurgery.surgery.architecture.naming import ABBREVIATED, pattern
from vlsurgery.surgery.architecture.site import Site


class TensorGroup(NamedTuple):
    """The sites of one role that share a pattern, one tensor a layer. members: numbers in the name -> site."""

    pattern: str
    members: Mapping[tuple[int, ...], Site]
    shapes: Mapping[tuple[int, ...], Shape]


Pairing = tuple[TensorGroup, TensorGroup]
# The items of a group's `shapes`: its layers and the shape in each.
Signature = frozenset[tuple[tuple[int, ...], Shape]]


def repeated(site: Site, part: TensorView) -> tuple[str, tuple[int, ...]]:
    """A site's pattern and numbers; in the text stack the layer is the base's, not the file's."""
    if site.tower == "text" and site.layer is not None:
        word, numbers = pattern(site.component.removeprefix("raw:"))
        return word, (site.layer, *numbers)
    return pattern(part.name if part.slices is None else f"{part.name}.{site.component}")


def single(site: Site, part: TensorView) -> tuple[str, tuple[int, ...]]:
    """A pattern of its own for each tensor, for layers whose names differ."""
    return f"{part.name} {site.component}", ()


def by_ends(mine: Sequence[TensorGroup], theirs: Sequence[TensorGroup], words: int) -> list[Pairing]:
    """Pairs of patterns that end in the same `words` words, where only one pattern on either side does."""
    sides = []
    for groups in (mine, theirs):
        ends: dict[tuple[str, ...], list[TensorGroup]] = {}
        for group in groups:
            end = [ABBREVIATED.get(word, word) for word in group.pattern.removesuffix(".weight").split(".")[-words:]]
            ends.setdefault(tuple(end), []).append(group)
        sides.append({end: held[0] for end, held in ends.items() if len(held) == 1})
    return [(group, sides[1][end]) for end, group in sides[0].items() if end in sides[1]]


def in_number_order(mine: Sequence[TensorGroup], theirs: Sequence[TensorGroup]) -> list[Pairing]:
    """Pairs in numeric order, where the patterns of either side differ in a number alone ("norm0", "norm1")."""
    if len(mine) != len(theirs):
        return []
    sides = []
    for groups in (mine, theirs):
        if len({re.sub(r"\d", "", group.pattern) for group in groups}) != 1:
            return []
        sides.append(sorted(groups, key=lambda group: [int(n) for n in re.findall(r"\d+", group.pattern)]))
    return list(zip(*sides, strict=True))
