"""Values per site as a recipe spells them: with as few keys as it takes."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isclose
from typing import Final

from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.merge.keys import DEFAULT, EVERYWHERE, at
from vlsurgery.surgery.mergekit.methods import Scalar
from vlsurgery.surgery.mergekit.settings import shortened
from vlsurgery.surgery.results import Tower

# One value for each model (or a single one); None for a model that has no part in the site.
Values = tuple[Scalar | None, ...]
# The same, with a list along the layers where a value is one.
Spelt = tuple[Scalar | list[float] | None, ...]

# The keys that sites in layers of the text tower share with others, from the general to the specific.
_LEVELS: Final[tuple[Callable[[Site], str | None], ...]] = (
    lambda _: DEFAULT,
    lambda site: None if site.layer is None else str(site.layer),
    lambda site: None if site.layer is None else site.component,
    lambda site: None if site.layer is None else site.block,
)


def compress(values: Mapping[Site, Values], gradients: Collection[Sequence[float]] = ()) -> dict[str, Spelt]:
    """Key -> values such that each site resolves to its own: the most specific key wins, and lists run along the layers
    of the site's tower (`vlsurgery.surgery.merge.keys`).

    gradients: lists that may be behind the values; one of them is spelt in place of a value per layer where it says the
    same. Of the tables that combinations of levels give, the shortest is taken.
    """
    if len(set(values.values())) == 1:
        return {EVERYWHERE: next(iter(values.values()))}
    speller = _Speller(values, tuple(sorted(gradients, key=len)), _depths(values))
    first = speller.offers(lambda _: EVERYWHERE, values)
    text = [site for site in values if site.tower == "text"]
    levels = [speller.offers(key_of, text) for key_of in _LEVELS]
    last = [speller.offers(_outer_block, values), speller.offers(lambda site: site.key, values)]
    tables = (
        _table([first, *chosen, *last]) for count in range(len(levels) + 1) for chosen in combinations(levels, count)
    )
    return min(tables, key=_length)


@dataclass(frozen=True)
class _Offer:
    """What one key would best say, and for which of its sites that is right."""

    key: str
    spelt: Spelt
    right: Mapping[Site, bool]


def _table(levels: Iterable[Iterable[_Offer]]) -> dict[str, Spelt]:
    """Key after key, from the general to the specific, those that make more sites right than wrong."""
    table: dict[str, Spelt] = {}
    settled: set[Site] = set()
    for offers in levels:
        for offer in offers:
            before = sum(map(settled.__contains__, offer.right))
            if before < sum(offer.right.values()):
                table[offer.key] = offer.spelt
                settled.difference_update(offer.right)
                settled.update(site for site, right in offer.right.items() if right)
    return table


def _length(table: Mapping[str, Spelt]) -> float:
    """How long a table is to read; a list counts for a little more than a number."""
    return sum(1.5 if any(isinstance(value, list) for value in spelt) else 1.0 for spelt in table.values())


def _depths(sites: Iterable[Site]) -> dict[str, int]:
    """Tower -> how many layers it has."""
    depths: dict[str, int] = {}
    for site in sites:
        depths[site.tower] = max(depths.get(site.tower, 0), 0 if site.layer is None else site.layer + 1)
    return depths


@dataclass(frozen=True)
class _Speller:
    """values: site -> what it must resolve to. gradients: shortest first. depths: tower -> layers."""

    values: Mapping[Site, Values]
    gradients: tuple[Sequence[float], ...]
    depths: Mapping[str, int]

    def offers(self, key_of: Callable[[Site], str | None], sites: Iterable[Site]) -> list[_Offer]:
        """The best that each key of one level could say."""
        groups: dict[str, list[Site]] = {}
        for site in sites:
            key = key_of(site)
            if key is not None:
                groups.setdefault(key, []).append(site)
        return [self._offer(key, members) for key, members in groups.items()]

    def _offer(self, key: str, sites: list[Site]) -> _Offer:
        offers = [
            _Offer(key, spelt, {site: self._says(spelt, site) for site in sites}) for spelt in self._candidates(sites)
        ]
        return max(offers, key=lambda offer: sum(offer.right.values()))

    def _says(self, spelt: Spelt, site: Site) -> bool:
        """Whether the site has its values where this is what its key says."""
        return all(
            said == wanted
            if said is None or wanted is None or isinstance(said, bool)
            else isclose(at(said, site, self.depths[site.tower]), wanted, rel_tol=1e-12)
            for said, wanted in zip(spelt, self.values[site], strict=True)
        )

    def _candidates(self, sites: list[Site]) -> list[Spelt]:
        """What one key could say of these sites: one value for all, a list along the layers, or a gradient that gives
        the same list."""
        same = Counter(self.values[site] for site in sites).most_common(1)[0][0]
        row = self._row(sites)
        if len(set(row)) < 2 or any(type(value) is not float for each in row for value in each):
            return [same]
        columns = [list(column) for column in zip(*row, strict=True)]
        whole = tuple(column[0] if len(set(column)) == 1 else column for column in columns)
        return [
            same,
            tuple(shortened(value, self.gradients) if isinstance(value, list) else value for value in whole),
            whole,
        ]

    def _row(self, sites: Iterable[Site]) -> list[Values]:
        """The commonest values in each layer of the text tower, or else of another one; a layer without such a tensor
        says what the one before it does."""
        by_layer: dict[tuple[Tower, int], list[Values]] = {}
        for site in sites:
            if site.layer is not None:
                by_layer.setdefault((site.tower, site.layer), []).append(self.values[site])
        if not by_layer:
            return []
        tower = "text" if any(each == "text" for each, _ in by_layer) else next(iter(by_layer))[0]
        known = {
            layer: Counter(found).most_common(1)[0][0] for (each, layer), found in by_layer.items() if each == tower
        }
        row = [known[min(known)]]
        for layer in range(self.depths[tower]):
            row.append(known.get(layer, row[-1]))
        return row[1:]


def _outer_block(site: Site) -> str | None:
    return None if site.tower == "text" and site.layer is not None else site.block
