"""Values per tensor as mergekit's YAML spells them: a number, a gradient, or filters on raw names."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any, NamedTuple

from vlsurgery.surgery.mergekit.methods import Scalar
from vlsurgery.surgery.mergekit.places import Place
from vlsurgery.surgery.mergekit.settings import Case, Setting, evaluate, shortened

Spelt = tuple[Scalar, ...]


class _Kind(NamedTuple):
    """The tensors that differ only in their layer's number: "model.layers", "mlp.up_proj.weight". Outside of layers a
    tensor is a kind of its own, without a stack."""

    stack: str | None
    suffix: str


def spell(values: Mapping[str, Scalar], places: Mapping[str, Place], gradients: Sequence[Sequence[float]]) -> Any:
    """A setting, as YAML holds it, that gives each raw name its value.

    values: raw name -> value, of all tensors. gradients: lists that may be behind the values, shortest first.
    """
    setting = _Filters(values, places, gradients).setting()
    if len(setting) == 1:
        return _plain(setting[0].values)
    return [
        {"value": _plain(case.values)} if case.filter is None else {"filter": case.filter, "value": _plain(case.values)}
        for case in setting
    ]


def _plain(values: Spelt) -> Scalar | list[Scalar]:
    return values[0] if len(values) == 1 else list(values)


@dataclass(frozen=True)
class _Filters:
    values: Mapping[str, Scalar]
    places: Mapping[str, Place]
    gradients: Sequence[Sequence[float]]

    def setting(self) -> Setting:
        """Tensors that no shorter filter singles out by name, then filters that are true of all that they fit, then
        the commonest value for the rest."""
        kinds = self._kinds()
        spelt = {kind: self._spelt(names) for kind, names in kinds.items()}
        tally: Counter[Spelt] = Counter()
        for kind, names in kinds.items():
            tally[spelt[kind]] += len(names)
        rest = Case(None, tally.most_common(1)[0][0])
        filters: list[Case] = []
        for kind, names in kinds.items():
            if any(self._is_wrong((*filters, rest), name) for name in names):
                filters += self._filter(kind, names, spelt[kind])
        return (*self._singled_out((*filters, rest)), *filters, rest)

    def _kinds(self) -> dict[_Kind, list[str]]:
        kinds: dict[_Kind, list[str]] = {}
        for name in self.values:
            place = self.places[name]
            start = 0 if place.stack is None else len(f"{place.stack}.{place.layer}.")
            kinds.setdefault(_Kind(place.stack, name[start:]), []).append(name)
        return kinds

    def _spelt(self, names: Sequence[str]) -> Spelt:
        """What the tensors of one kind have in common: one value, or a gradient with one for each layer."""
        by_layer = {self.places[name].layer: self.values[name] for name in names}
        first = by_layer[min(by_layer)]
        if len(set(by_layer.values())) == 1 or isinstance(first, bool):
            return (first,)
        row = [first]
        for layer in range(self.places[names[0]].layers):
            row.append(by_layer.get(layer, row[-1]))
        return tuple(shortened(row[1:], self.gradients))

    def _filter(self, kind: _Kind, names: Sequence[str], spelt: Spelt) -> list[Case]:
        """The shortest filter for a kind that says nothing wrong of any tensor; none where there is no such filter."""
        for part in _parts(kind, names):
            case = Case(part, spelt)
            if not any(self._is_wrong((case,), name) for name in self.values if case.fits(name)):
                return [case]
        return []

    def _singled_out(self, setting: Setting) -> list[Case]:
        """A filter with the whole name for each tensor that the setting gives a wrong value; the longest names first,
        since a name may be a part of another."""
        singled: list[Case] = []
        wrong = [name for name in self.values if self._is_wrong(setting, name)]
        while wrong:
            names = {*wrong, *(str(case.filter) for case in singled)}
            singled = [Case(name, (self.values[name],)) for name in sorted(names, key=len, reverse=True)]
            wrong = [name for name in self.values if self._is_wrong((*singled, *setting), name)]
        return singled

    def _is_wrong(self, setting: Setting, name: str) -> bool:
        found, wanted = evaluate(setting, name, self.places[name].t()), self.values[name]
        if found is None or isinstance(wanted, bool):
            return found != wanted
        return not isclose(found, wanted, rel_tol=1e-12)


def _parts(kind: _Kind, names: Sequence[str]) -> Iterator[str]:
    """What all names of a kind have in them, whole words of it: from the front, then the part behind the layer."""
    front = names[0] if kind.stack is None else f"{kind.stack}."
    for text in (front,) if kind.stack is None else (front, kind.suffix):
        words = text.split(".")
        for count in range(1, len(words)):
            yield ".".join(words[:count])
            yield ".".join(words[:count]) + "."
        if not text.endswith("."):
            yield text
