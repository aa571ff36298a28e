"""Patterns of names: what repeats from layer to layer, where it stands, and which patterns of two models go together
by their words or their numbers alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlsurgery.surgery.architecture.decoder_stack import Shape
from vlsurgery.surgery.architecture.layouts import TensorView
from vlsurgery.surgery.architecture.naming import ABBREVIATED, pattern
from vlsurgery.surgery.architecture.site import Site


@dataclass(frozen=True)
class Group:
    """The sites of one role that share a pattern: one tensor a layer. members: numbers in the name -> site."""

    pattern: str
    members: Mapping[tuple[int, ...], Site]
    shapes: Mapping[tuple[int, ...], Shape]

    @property
    def signature(self) -> "Signature":
        """Where it stands: in which layers, with which shapes."""
        return frozenset(self.shapes.items())


Pairing = tuple[Group, Group]
Signature = frozenset[tuple[tuple[int, ...], Shape]]


def repeated(site: Site, part: TensorView) -> tuple[str, tuple[int, ...]]:
    """A site's pattern and numbers; in the text stack the layer is the base's, whatever the file's number is."""
    if site.tower == "text" and site.layer is not None:
        word, numbers = pattern(site.component.removeprefix("raw:"))
        return word, (site.layer, *numbers)
    return pattern(part.name if part.slices is None else f"{part.name}.{site.component}")


def single(site: Site, part: TensorView) -> tuple[str, tuple[int, ...]]:
    """Each tensor by itself, for what repeats under names that don't."""
    return f"{part.name} {site.component}", ()


def by_ends(mine: Sequence[Group], theirs: Sequence[Group], words: int) -> list[Pairing]:
    """Pairs of patterns that alone, on either side, end in the same `words` words."""
    sides = []
    for groups in (mine, theirs):
        ends: dict[tuple[str, ...], list[Group]] = {}
        for group in groups:
            end = [ABBREVIATED.get(word, word) for word in group.pattern.removesuffix(".weight").split(".")[-words:]]
            ends.setdefault(tuple(end), []).append(group)
        sides.append({end: held[0] for end, held in ends.items() if len(held) == 1})
    return [(group, sides[1][end]) for end, group in sides[0].items() if end in sides[1]]


def in_number_order(mine: Sequence[Group], theirs: Sequence[Group]) -> list[Pairing]:
    """Patterns that differ by a number alone on both sides ("norm0", "norm1" and "ln.1", "ln.2"): pairs in order."""
    if len(mine) != len(theirs):
        return []
    sides = []
    for groups in (mine, theirs):
        stems = {"".join(c for c in group.pattern if not c.isdecimal()) for group in groups}
        if len(stems) != 1:
            return []
        sides.append(sorted(groups, key=lambda group: [int(n) for n in _numbers(group.pattern)]))
    return list(zip(*sides, strict=True))


def _numbers(text: str) -> list[str]:
    return "".join(c if c.isdecimal() else " " for c in text).split()
