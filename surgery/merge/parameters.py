"""Parameters of a merge method at each site: what a recipe says, or else the method's defaults."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import RecipeError
from vlsurgery.surgery.merge.coefficients import check_range
from vlsurgery.surgery.merge.recipe_keys import at, check_key, rows_of
from vlsurgery.surgery.methods import Method, Parameter

Number = bool | float | Sequence[float]
Value = Number | Mapping[str, Number]


class Parameters:
    """Key -> {parameter: value}, as recipes spell it; a value may be a list along the layers, and for a parameter per
    model a mapping of model to value.

    Unlike coefficients, which the most specific key decides together, each parameter has the value of the most specific
    key that names it, or else its method's default.
    """

    def __init__(self, table: Mapping[str, Mapping[str, Value]], method: Method, models: Iterable[str]) -> None:
        self._table = table
        self._method = method
        self._models = tuple(models)
        for key, row in table.items():
            check_key(key, "parameter")
            for name, value in row.items():
                self._check(f"parameters.{key}.{name}", name, value)

    def resolve(self, site: Site, depth: int) -> dict[str, Any]:
        """Name -> value at one site; name -> {model: value} for parameters per model."""
        return {name: self._value(name, parameter, site, depth) for name, parameter in self._method.parameters.items()}

    def _value(self, name: str, parameter: Parameter, site: Site, depth: int) -> Any:
        stated: list[Any] = [row[name] for row in rows_of(self._table, site) if name in row]

        def of(model: str) -> Any:
            each = (value.get(model) if isinstance(value, Mapping) else value for value in stated)
            value: Any = next((value for value in each if value is not None), parameter.default)
            return value if isinstance(value, bool) else at(value, site, depth)

        return {model: of(model) for model in self._models} if parameter.per_model else of("")

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
            if parameter.is_switch and isinstance(number, bool):
                continue
            if parameter.is_switch or isinstance(number, bool):
                raise RecipeError(
                    f"{what}: {number!r} is not {'true or false' if parameter.is_switch else 'a number'}."
                )
            check_range(what, number, parameter.low, parameter.high)
