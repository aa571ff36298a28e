"""The options of `merge --method`: `--weight`, and one for every parameter of any method in METHODS."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from vlsurgery.surgery.methods import METHODS, Parameter


def with_method_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each parameter of a method in place of its argument `parameters`, which is then
    name -> value of those that were given.

    Typer reads a command's options from its signature.
    """
    options = {f"method_{name}": (name, _annotation(name, uses)) for name, uses in _uses().items()}

    @functools.wraps(command)
    def with_options(*arguments: Any, **own: Any) -> None:
        given = {name: own.pop(keyword) for keyword, (name, _) in options.items()}
        command(*arguments, **own, parameters={name: value for name, value in given.items() if value not in (None, [])})

    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == "method":
            told = typer.Option("--method", metavar="NAME", help=f"Merge MODELs by one of {', '.join(METHODS)}.")
            parameter = parameter.replace(annotation=Annotated[str | None, told])
        if parameter.name != "parameters":
            parameters.append(parameter)
            continue
        for keyword, (_, annotation) in options.items():
            parameters.append(parameter.replace(name=keyword, annotation=annotation, default=None))
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return with_options


def _uses() -> Mapping[str, Mapping[str, Parameter]]:
    """Name of a parameter -> method -> the parameter of that name of the method."""
    found: dict[str, dict[str, Parameter]] = {}
    for method, row in METHODS.items():
        for name, parameter in row.parameters.items():
            found.setdefault(name, {})[method] = parameter
    return found


def _annotation(name: str, uses: Mapping[str, Parameter]) -> Any:
    """The option's type and help: each meaning of the parameter, with the methods in which it has that meaning."""
    meanings: dict[str, list[str]] = {}
    for method, parameter in uses.items():
        meanings.setdefault(parameter.meaning, []).append(method)
    told = "; ".join(f"{meaning} ({', '.join(methods)})" for meaning, methods in meanings.items())
    if any(parameter.is_switch for parameter in uses.values()):
        off = next(iter(uses.values())).negative or f"no-{name}"
        return Annotated[bool | None, typer.Option(f"--{name}/--{off}", help=f"With --method: {told}.")]
    often = "once, or per model" if any(parameter.per_model for parameter in uses.values()) else "once"
    return Annotated[
        list[float] | None, typer.Option(f"--{name}", metavar="NUMBER", help=f"With --method: {told}; {often}.")
    ]
