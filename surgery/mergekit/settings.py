"""One setting of mergekit's: a number or a switch, a gradient over layers, or filters that pick one of them by name."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.mergekit.methods import KINDS, Scalar

_ADAPTERS: Final[Mapping[type[Scalar], TypeAdapter[Any]]] = {float: TypeAdapter(float), bool: TypeAdapter(bool)}


@dataclass(frozen=True)
class Case:
    """A value for the tensors whose raw name has `filter` in it; for all where that is None. values: one, or a gradient
    from the first layer to the last."""

    filter: str | None
    values: tuple[Scalar, ...]

    def fits(self, name: str) -> bool:
        return self.filter is None or self.filter in name

    def at(self, t: float) -> Scalar:
        return interpolated(self.values, t)


Setting = tuple[Case, ...]
Settings = Mapping[str, Setting]


def parse_settings(data: Any, where: str, allowed: Iterable[str], method: str) -> dict[str, Setting]:
    """A `parameters:` mapping. allowed: what may stand there.

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
    return {name: parse_setting(value, f"{where}.{name}", KINDS[name]) for name, value in data.items()}


def parse_setting(data: Any, where: str, kind: type[Scalar]) -> Setting:
    """A value, a gradient, one filter or a list of them."""
    if isinstance(data, Mapping):
        return (_case(data, where, kind),)
    if isinstance(data, list) and any(isinstance(entry, Mapping) for entry in data):
        return tuple(_case(entry, f"{where}[{place}]", kind) for place, entry in enumerate(data))
    return (Case(None, _values(data, where, kind)),)


def _case(data: Any, where: str, kind: type[Scalar]) -> Case:
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
    return Case(None if name == "*" else name, _values(data["value"], f"{where}.value", kind))


def _values(data: Any, where: str, kind: type[Scalar]) -> tuple[Scalar, ...]:
    entries = data if isinstance(data, list) else [data]
    if not entries:
        raise RecipeError(f"{where}: an empty list.")
    return tuple(_scalar(entry, where, kind) for entry in entries)


def _scalar(data: Any, where: str, kind: type[Scalar]) -> Scalar:
    """A value as mergekit takes it: YAML reads `1e-4` as text, which counts as the number that it spells."""
    try:
        value: Scalar = _ADAPTERS[kind].validate_python(data)
    except ValidationError as error:
        wanted = "a number" if kind is float else "true or false"
        raise RecipeError(f"{where}: expected {wanted}, found {data!r:.60}.") from error
    if not -float("inf") < value < float("inf"):
        raise RecipeError(f"{where}: {data!r:.60} is not a finite number.")
    return value


def interpolated(values: Sequence[Scalar], t: float) -> Scalar:
    """A gradient's value at t, 0 for the first layer and 1 for the last: numbers on the straight line between their
    neighbours, switches as the last one that was passed."""
    place = t * (len(values) - 1)
    before = int(place)
    first = values[before]
    if isinstance(first, bool):
        return first
    after = values[min(before + 1, len(values) - 1)]
    return (1 - (place - before)) * first + (place - before) * after


def shortened(values: Sequence[float], gradients: Iterable[Sequence[float]]) -> list[float]:
    """The first of the gradients that gives these values, one per layer; the values themselves where none does."""
    last = len(values) - 1
    for gradient in gradients:
        if len(gradient) <= len(values) and all(
            isclose(interpolated(gradient, layer / last), value, rel_tol=1e-12) for layer, value in enumerate(values)
        ):
            return list(gradient)
    return list(values)


def evaluate(setting: Setting, name: str, t: float) -> Scalar | None:
    """The value for the tensor `name`: of the first case that fits it; None where none does."""
    return next((case.at(t) for case in setting if case.fits(name)), None)


def look_up(parameter: str, scopes: Iterable[Settings], name: str, t: float) -> Scalar | None:
    """The value in the first scope that has one for the tensor `name`, the most specific scope first."""
    found = (evaluate(scope[parameter], name, t) for scope in scopes if parameter in scope)
    return next((value for value in found if value is not None), None)
