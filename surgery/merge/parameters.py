"""The parameters of a merge method, per site: what a recipe says, and the method's own defaults."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.coefficients import check_range
from vlsurgery.surgery.merge.keys import at, check_key, keys_of
from vlsurgery.surgery.methods import Method, Parameter

Number = bool | float | Sequence[float]
Value = Number | Mapping[str, Number]

# Where a recipe keeps them.
WHERE: Final = "parameters"


class Parameters:
    """Key -> {parameter: value}, as recipes spell it; a value may be a list along the layers, and one per model a
    mapping of model to value.

    Unlike coefficients, they resolve one by one: each parameter has the value of the most specific key that names it,
    or else its method's default.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Value]], method: Method, models: Iterable[str]) -> None:
        self._table = table
        self._method = method
        self._models = tuple(models)
        for key, values in table.items():
            check_key(key, "parameter")
            for name, value in values.items():
                self._check(f"{WHERE}.{key}.{name}", name, value)

    def resolve(self, site: Site, depth: int) -> dict[str, Any]:
        """Name -> value at one site; name -> {model: value} for those that each model has of its own."""
        return {name: self._value(name, parameter, site, depth) for name, parameter in self._method.parameters.items()}

    def _value(self, name: str, parameter: Parameter, site: Site, depth: int) -> Any:
        if not parameter.per_model:
            found = [value for value in self._stated(name, site) if not isinstance(value, Mapping)]
            return _at(found[0] if found else parameter.default, site, depth)
        return {
            model: _at(
                next(
                    (
                        value.get(model) if isinstance(value, Mapping) else value
                        for value in self._stated(name, site)
                        if not isinstance(value, Mapping) or model in value
                    ),
                    parameter.default,
                ),
                site,
                depth,
            )
            for model in self._models
        }

    def _stated(self, name: str, site: Site) -> list[Value]:
        """What the recipe says of one parameter at one site, the most specific first."""
        return [self._table[key][name] for key in keys_of(site) if name in self._table.get(key, {})]

    def _check(self, what: str, name: str, value: Value) -> None:
        if name not in self._method.parameters:
            known = ", ".join(self._method.parameters) or "none"
            raise RecipeError(f"{what}: the method has no such parameter; it has {known}.")
        parameter = self._method.parameters[name]
        if isinstance(value, Mapping):
            strange = sorted(set(value) - set(self._models))
            if not parameter.per_model or strange:
                fault = f"{strange[0]!r} is none of the models" if strange else "is the same for all models"
                raise RecipeError(f"{what}: {fault} ({', '.join(self._models)}).")
        for number in value.values() if isinstance(value, Mapping) else [value]:
            _check_number(what, parameter, number)


def _check_number(what: str, parameter: Parameter, value: Number) -> None:
    if parameter.is_switch or isinstance(value, bool):
        if not (parameter.is_switch and isinstance(value, bool)):
            raise RecipeError(f"{what}: {value!r} is not {'true or false' if parameter.is_switch else 'a number'}.")
        return
    numbers = value if isinstance(value, Sequence) else [value]
    if not numbers:
        raise RecipeError(f"{what}: an empty list.")
    for number in numbers:
        check_range(what, number, parameter.low, parameter.high)


def _at(value: Any, site: Site, depth: int) -> Any:
    return value if isinstance(value, bool) else at(value, site, depth)
