"""One setting of mergekit's: a number or a switch, a gradient over layers, or filters that pick one of them by name."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.keys import interpolate
from vlsurgery.surgery.mergekit.methods import KINDS, Scalar

_ADAPTERS: Final[Mapping[type[Scalar], TypeAdapter[Any]]] = {float: TypeAdapter(float), bool: TypeAdapter(bool)}
_LAYER: Final = re.compile(r"(.*?)\.(\d+)\.")


@dataclass(frozen=True)
class FilteredValue:
    """A value for the tensors whose raw name contains `filter`; for all where that is None. values: one, or a gradient
    from the first layer to the last."""

    filter: str | None
    values: tuple[Scalar, ...]

    def fits(self, name: str) -> bool:
        return self.filter is None or self.filter in name

    def at(self, t: float) -> Scalar:
        """The value at t, 0 for the first layer and 1 for the last; a switch is the last one that was passed."""
        place = t * (len(self.values) - 1)
        return self.values[int(place)] if isinstance(self.values[0], bool) else interpolate(self.values, place)


Setting = tuple[FilteredValue, ...]
Settings = Mapping[str, Setting]


def parse_settings(data: Any, where: str, allowed: Iterable[str], method: str) -> dict[str, Setting]:
    """The settings of a `parameters:` mapping. allowed: the parameters that may stand there.

    Raises RecipeError that names the parameter: one that nobody knows, one that has no effect there, a wrong value.
    """
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: expected a mapping of parameters, found {data!r:.60}.")
    known = set(allowed)
    for name in data:
        if name not in known:
            what = "has no effect there" if name in KINDS else "is no parameter of mergekit's that this tool knows"
            raise RecipeError(
                f"{where}.{name}: {name!r} {what} ({method} takes {', '.join(sorted(known)) or 'none'}). Remove it."
            )
    return {name: _setting(value, f"{where}.{name}", KINDS[name]) for name, value in data.items()}


def _setting(data: Any, where: str, kind: type[Scalar]) -> Setting:
    """A value, a gradient, one filter or a list of them."""
    if isinstance(data, Mapping):
        return (_filtered(data, where, kind),)
    if isinstance(data, list) and any(isinstance(entry, Mapping) for entry in data):
        return tuple(_filtered(entry, f"{where}[{number}]", kind) for number, entry in enumerate(data))
    return (FilteredValue(None, _values(data, where, kind)),)


def _filtered(data: Any, where: str, kind: type[Scalar]) -> FilteredValue:
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: expected `filter` and `value`, as the entries beside it have, found {data!r:.60}.")
    for key in data:
        if key not in ("filter", "value"):
            raise RecipeError(f"{where}.{key}: no such key; there are `filter` and `value`.")
    if "value" not in data:
        raise RecipeError(f"{where}.value: missing.")
    name = data.get("filter")
    if name is not None and not isinstance(name, str):
        raise RecipeError(f"{where}.filter: expected a part of a tensor's name, found {name!r:.60}.")
    return FilteredValue(None if name == "*" else name, _values(data["value"], f"{where}.value", kind))


def _values(data: Any, where: str, kind: type[Scalar]) -> tuple[Scalar, ...]:
    """Numbers or switches as mergekit takes them: YAML reads `1e-4` as text, which counts as the number it spells."""
    entries = data if isinstance(data, list) else [data]
    if not entries:
        raise RecipeError(f"{where}: an empty list.")
    found = []
    for entry in entries:
        try:
            found.append(_ADAPTERS[kind].validate_python(entry))
        except ValidationError as error:
            wanted = "a number" if kind is float else "true or false"
            raise RecipeError(f"{where}: expected {wanted}, found {entry!r:.60}.") from error
        if not -float("inf") < found[-1] < float("inf"):
            raise RecipeError(f"{where}: {entry!r:.60} is not a finite number.")
    return tuple(found)


def look_up(parameter: str, scopes: Iterable[Settings], name: str, t: float) -> Scalar | None:
    """The value in the first scope that has one for the tensor `name`, the most specific scope first; else None."""
    cases = (case for scope in scopes for case in scope.get(parameter, ()))
    return next((case.at(t) for case in cases if case.fits(name)), None)


def layers_of(names: Iterable[str]) -> dict[str, tuple[str, int] | None]:
    """Raw name -> what stands before its layer's number ("model.layers"), and the number: the first one between dots;
    None outside of layers."""
    matches = {name: _LAYER.match(name) for name in names}
    return {name: (match[1], int(match[2])) if match else None for name, match in matches.items()}
