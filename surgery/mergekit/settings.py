"""One parameter's setting in mergekit's YAML: a number or a switch, a gradient over layers, or a list of filters."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic import FiniteFloat, TypeAdapter, ValidationError

from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.recipe_keys import interpolate
from vlsurgery.surgery.mergekit.methods import KINDS, NEUTRAL, Scalar
from vlsurgery.surgery.runtime.excerpts import excerpt

# YAML reads `1e-4` as text, which counts as the number that it spells.
_ADAPTERS: Final[Mapping[type[Scalar], TypeAdapter[Any]]] = {
    float: TypeAdapter(list[FiniteFloat]),
    bool: TypeAdapter(list[bool]),
}


class FilteredValue(NamedTuple):
    """A value for the tensors whose raw name contains `filter`; for all where that is empty. values: one, or a gradient
    from the first layer to the last."""

    filter: str
    values: tuple[Scalar, ...]

    def at(self, t: float) -> Scalar:
        """The value at t, 0 for the first layer and 1 for the last: interpolated, or the last switch at or before t."""
        position = t * (len(self.values) - 1)
        return self.values[int(position)] if isinstance(self.values[0], bool) else interpolate(self.values, position)


class Scope(NamedTuple):
    """The settings of one `parameters:`. where: its place in the file. settings: parameter -> values; the first one
    whose filter fits a tensor's name counts."""

    where: str
    settings: Mapping[str, tuple[FilteredValue, ...]] = {}


def parse_settings(data: Mapping[str, Any], where: str, method: str, allowed: Iterable[str]) -> Scope:
    """The settings under `parameters`. where: what stands before it in the file. allowed: what may stand there.

    Raises RecipeError that names the parameter: one that nobody knows, one that has no effect there, a wrong value.
    """
    where, found, known = f"{where}parameters", data.get("parameters"), sorted({NEUTRAL, *allowed})
    if not isinstance(found, Mapping | None):
        raise RecipeError(f"{where}: expected a mapping of parameters, found {excerpt(found)}.")
    settings = {}
    for name, value in (found or {}).items():
        if name not in known:
            what = "has no effect there" if name in KINDS else "is no parameter of mergekit's that this tool knows"
            raise RecipeError(f"{where}.{name}: {excerpt(name)} {what} ({method} takes {', '.join(known)}). Remove it.")
        settings[name] = _cases(value, f"{where}.{name}", KINDS[name])
    return Scope(where, {name: cases for name, cases in settings.items() if name != NEUTRAL})


def check_keys(data: Any, where: str, keys: Sequence[str], fault: str = "can't be carried over") -> Mapping[str, Any]:
    """`data`, checked. Raises RecipeError where it is no mapping, or has a key that is none of `keys`."""
    known = " and ".join(f"`{key}`" for key in keys)
    if not isinstance(data, Mapping):
        raise RecipeError(f"{where}: expected {known}, found {excerpt(data)}.")
    for key in data:
        if key not in keys:
            raise RecipeError(f"{where}.{key}: {fault}; known here are {known}.")
    return data


def _cases(data: Any, where: str, kind: type[Scalar]) -> tuple[FilteredValue, ...]:
    """The values of a setting: a value, a gradient, one filter or a list of them."""
    if isinstance(data, Mapping):
        return (_filtered(data, where, kind),)
    if isinstance(data, list) and any(isinstance(entry, Mapping) for entry in data):
        return tuple(_filtered(entry, f"{where}[{number}]", kind) for number, entry in enumerate(data))
    return (FilteredValue("", _values(data, where, kind)),)


def _filtered(data: Any, where: str, kind: type[Scalar]) -> FilteredValue:
    case = check_keys(data, where, ("filter", "value"), "no such key")
    if "value" not in case:
        raise RecipeError(f"{where}.value: missing.")
    name = "*" if case.get("filter") is None else case["filter"]
    if not isinstance(name, str):
        raise RecipeError(f"{where}.filter: expected a part of a tensor's name, found {excerpt(name)}.")
    return FilteredValue("" if name == "*" else name, _values(case["value"], f"{where}.value", kind))


def _values(data: Any, where: str, kind: type[Scalar]) -> tuple[Scalar, ...]:
    entries = data if isinstance(data, list) else [data]
    if not entries:
        raise RecipeError(f"{where}: an empty list.")
    try:
        return tuple(_ADAPTERS[kind].validate_python(entries))
    except ValidationError as error:
        fault = error.errors()[0]
        found = excerpt(fault["input"])
        if fault["type"] == "finite_number":
            raise RecipeError(f"{where}: {found} is not a finite number.") from error
        wanted = "true or false" if kind is bool else "a number"
        raise RecipeError(f"{where}: expected {wanted}, found {found}.") from error
