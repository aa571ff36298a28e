"""The recipe of `merge --method`: from models and options, without a case."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.text_stack import choose_text_stacks
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.merge.coefficients import check_range
from vlsurgery.surgery.merge.recipe import Recipe, unique_names
from vlsurgery.surgery.methods import METHODS, Method

# Methods that start from the first model where no base is named, and go toward the others.
FROM_THE_FIRST: Final = ("blend", "slerp")


@dataclass(frozen=True)
class MethodArgs:
    """What was asked for. coefficients: one for each model, or one for all. parameters: name -> values likewise; those
    that were not given are left out."""

    method: str
    models: Sequence[str]
    base: str | None = None
    like: str | None = None
    coefficients: Sequence[float] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "as like"
    seed: int = 0


@dataclass(frozen=True)
class RoleAssignment:
    """The role of each checkpoint. refs: role -> reference. models: the roles that are merged in, in the order in which
    they were given. base, like: roles; base is None where the method takes none."""

    refs: Mapping[str, str]
    models: Sequence[str]
    base: str | None
    like: str


def recipe_of(
    asked: MethodArgs, allow_pickle: bool = False, text_stacks: Sequence[str] = ()
) -> tuple[Recipe, dict[str, Checkpoint]]:
    """The recipe, with the same coefficients in the whole language model and every parameter of the method written
    out; and its checkpoints, opened.

    Without a base, slerp and blend start from the first model. The result has the tensors, config, tokenizer and vision
    tower of `like`: unless one is named, the first model that is not the base. Everything is checked before a
    checkpoint is opened or fetched.

    Raises SurgeryError that names the option, what the method takes and what was given.
    """
    if asked.method not in METHODS:
        raise SurgeryError(f"--method: there is no {asked.method!r}; known are {', '.join(METHODS)}.")
    method = METHODS[asked.method]
    roles = _assign_roles(asked, method)
    coefficients = _coefficients(asked, method, roles.models)
    parameters = _parameters(asked, method, roles.models)
    opened = {role: Checkpoint.open(ref, allow_pickle=allow_pickle) for role, ref in roles.refs.items()}
    choose_text_stacks(opened.values(), text_stacks)
    recipe = Recipe.of(
        opened,
        {"default": coefficients},
        method=asked.method,
        base=roles.base,
        like=roles.like,
        parameters={"default": parameters} if parameters else {},
        dtype=asked.dtype,
        seed=asked.seed,
    )
    return recipe, opened


def _assign_roles(asked: MethodArgs, method: Method) -> RoleAssignment:
    """Name every model by the input that it is to the method, or else by the last part of its reference."""
    refs = {_place(ref): ref for ref in asked.models}
    if len(refs) < len(asked.models):
        raise SurgeryError(f"MODEL: one of {', '.join(asked.models)} is there twice; give each model once.")
    base = _base(asked, method)
    start = None if base is None else _place(base)
    merged = [place for place in refs if place != start]
    _check_count(asked, method, len(merged))
    like = asked.like or (asked.models[0] if asked.base is None else refs[merged[0]])
    if start is not None and base is not None:
        refs[start] = base
    if method.named_inputs:
        roles = dict(zip([*merged, start], [*method.named_inputs, "base"], strict=True))
    else:
        names = (Path(os.path.abspath(ref)).name or "model" for ref in refs.values())
        roles = dict(zip(refs, unique_names(names), strict=True))
    if _place(like) not in roles:
        raise SurgeryError(f"--like: {like} is none of the models; it is one of {', '.join(refs.values())}.")
    named = {roles[place]: ref for place, ref in refs.items()}
    return RoleAssignment(named, [roles[place] for place in merged], start and roles[start], roles[_place(like)])


def _base(asked: MethodArgs, method: Method) -> str | None:
    if asked.base is not None and not method.needs_base:
        raise SurgeryError(f"--base: {asked.method} takes no deltas. Leave it out, or give it as one more MODEL.")
    if asked.base is None and method.needs_base:
        if asked.method not in FROM_THE_FIRST:
            raise SurgeryError(f"{asked.method} takes deltas from a base: name it with --base.")
        return next(iter(asked.models), None)
    return asked.base


def _check_count(asked: MethodArgs, method: Method, count: int) -> None:
    """Raise SurgeryError where the method merges more or fewer models; a method without a base takes at least two."""
    fewest, most = method.models
    fewest = fewest if method.needs_base else max(2, fewest)
    if fewest <= count <= (most or count):
        return
    wanted = f"{fewest}" if most == fewest else f"{fewest} or more" if most is None else f"{fewest} to {most}"
    models = [name.upper() for name in method.named_inputs] or ["MODEL"] * fewest
    example = " ".join([*models, *(["--base BASE"] if method.needs_base else []), "-o OUT"])
    beside = " beside the base" if method.needs_base else ""
    raise SurgeryError(
        f"{asked.method} merges {wanted} model{'' if wanted == '1' else 's'}{beside}, and {count} "
        f"{'is' if count == 1 else 'are'} given: vlsurgery merge --method {asked.method} {example}"
    )


def _coefficients(asked: MethodArgs, method: Method, models: Sequence[str]) -> dict[str, float]:
    """A coefficient for each model. Where the method's default is 0, which leaves the base as it is, one must be
    given."""
    if not asked.coefficients and not method.coefficient.default:
        raise SurgeryError(
            f"{asked.method} has to be told {method.coefficient.meaning} ({', '.join(models)}): "
            "add --weight, from 0 to 1."
        )
    for coefficient in asked.coefficients:
        check_range("--weight", coefficient, method.coefficient.low, method.coefficient.high)
    return _each("--weight", asked.coefficients or [float(method.coefficient.default or 0.0)], models)


def _parameters(asked: MethodArgs, method: Method, models: Sequence[str]) -> dict[str, Any]:
    """Every parameter of the method, as given or by its default: the recipe means the same when a default changes."""
    found: dict[str, Any] = {name: parameter.default for name, parameter in method.parameters.items()}
    for name, value in asked.parameters.items():
        if name not in method.parameters:
            known = ", ".join(f"--{known}" for known in method.parameters) or "none"
            raise SurgeryError(f"--{name}: {asked.method} has no such parameter; it has {known}.")
        if not isinstance(value, Sequence):
            found[name] = value
            continue
        for number in value:
            check_range(f"--{name}", number, method.parameters[name].low, method.parameters[name].high)
        if len(value) > 1 and not method.parameters[name].per_model:
            raise SurgeryError(f"--{name}: is one number for all models, and {len(value)} were given.")
        found[name] = value[0] if len(value) == 1 else _each(f"--{name}", value, models)
    return found


def _each(option: str, values: Sequence[float], models: Sequence[str]) -> dict[str, float]:
    """One value for each model, in their order, or the one for all."""
    if len(values) not in (1, len(models)):
        raise SurgeryError(
            f"{option} was given {len(values)} times for {len(models)} models ({', '.join(models)}): give it once for "
            "all, or once for each, in their order."
        )
    return dict(zip(models, values if len(values) == len(models) else [*values] * len(models), strict=True))


def _place(ref: str) -> str:
    """The reference with real paths in place of directories, so that two spellings of one are equal."""
    parts = [ref] if os.path.isdir(ref) else ref.split("+")
    return "+".join(os.path.realpath(part) if os.path.isdir(part) else part for part in parts)
