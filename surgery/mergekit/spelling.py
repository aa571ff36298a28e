"""Values per site as a recipe spells them: with as few keys as it takes."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isclose
from typing import Final

from surgery.anatomy import Site
from surgery.keys import DEFAULT, EVERYWHERE, at
from surgery.mergekit.methods import Scalar
from surgery.mergekit.settings import shortened
from surgery.results import Tower

# One value for each model (or a single one); None for a model that has no part in the site.
Values = tuple[Scalar | None, ...]
# The same, with a list along the layers where a value is one.
Spelt = tuple[Scalar | list[float] | None, ...]

# The keys that sites in layers of the text tower share with others, from the general to the specific.
_LEVELS: Final[Mapping[str, Callable[[Site], str | None]]] = {
    DEFAULT: lambda _: DEFAULT,
    "layer": lambda site: None if site.layer is None else str(site.layer),
    "component": lambda site: None if site.layer is None else site.component,
    "block": lambda site: None if site.layer is None else site.block,
}


def compress(values: Mapping[Site, Values], gradients: Collection[Sequence[float]] = ()) -> dict[str, Spelt]:
    """Key -> values such that each site resolves to its own: the most specific key wins, and lists run along the layers
    of the site's tower (`surgery.keys`).

    gradients: lists that may be behind the values; one of them is spelt in place of a value per layer where it says the
    same. Of the tables that combinations of levels give, the shortest is taken.
    """
    speller = _Speller(values, tuple(sorted(gradients, key=len)), _depths(values))
    if len(set(values.values())) == 1:
        return speller.table(())
    tables = (
        speller.table(levels) for count in range(len(_LEVELS) + 1) for levels in combinations(_LEVELS.values(), count)
    )
    return min(tables, key=_length)


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

    def table(self, levels: Iterable[Callable[[Site], str | None]]) -> dict[str, Spelt]:
        """`everywhere`, then the keys of these levels that make more sites right, then blocks outside of the text
        tower's layers, then single sites."""
        table: dict[str, Spelt] = {}
        wrong = dict.fromkeys(self.values, True)
        text = [site for site in self.values if site.tower == "text"]
        self._offer(table, wrong, lambda _: EVERYWHERE, self.values)
        for level in levels:
            self._offer(table, wrong, level, text)
        self._offer(table, wrong, _outer_block, self.values)
        self._offer(table, wrong, lambda site: site.key, self.values)
        return table

    def _offer(
        self,
        table: dict[str, Spelt],
        wrong: dict[Site, bool],
        key_of: Callable[[Site], str | None],
        sites: Iterable[Site],
    ) -> None:
        """Put the keys of one level that help into the table, and note which sites are still wrong."""
        groups: dict[str, list[Site]] = {}
        for site in sites:
            key = key_of(site)
            if key is not None:
                groups.setdefault(key, []).append(site)
        for key, members in groups.items():
            if not any(wrong[site] for site in members):
                continue
            best = min(self._candidates(members), key=lambda spelt: self._faults(spelt, members))
            if self._faults(best, members) < sum(wrong[site] for site in members):
                table[key] = best
                wrong.update({site: not self._says(best, site) for site in members})

    def _faults(self, spelt: Spelt, sites: Iterable[Site]) -> int:
        return sum(not self._says(spelt, site) for site in sites)

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
