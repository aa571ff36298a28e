"""`merge --method`: a merge of named models that needs no case and no recipe."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.merge.coefficients import check_range
from vlsurgery.surgery.merge.recipe import Recipe, unique_names
from vlsurgery.surgery.methods import METHODS, Method

# Methods that start from the first model where no base is named, and go toward the others.
FROM_THE_FIRST: Final = ("blend", "slerp")


@dataclass(frozen=True)
class MethodArgs:
    """What the command line asks for. weights: one for each model, or one for all. parameters: name -> values likewise;
    those that were not given are left out."""

    method: str
    models: Sequence[str]
    base: str | None = None
    like: str | None = None
    weights: Sequence[float] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "as like"
    seed: int = 0


@dataclass(frozen=True)
class RoleAssignment:
    """Who plays which part. refs: role -> what names its checkpoint. models: the roles that are merged in, in the order
    in which they were given. base, like: roles; there is no base where the method takes none."""

    refs: Mapping[str, str]
    models: Sequence[str]
    base: str | None
    like: str


def recipe_of(asked: MethodArgs, allow_pickle: bool = False) -> Recipe:
    """The recipe for it: the same weights in the whole language model, every parameter of the method written out.

    Without a base, slerp and blend start from the first model. The result has the tensors, config, tokenizer and vision
    tower of `like`: unless one is named, the first model that is not the base that was. Nothing is opened, or fetched,
    before all of it makes sense.

    Raises SurgeryError that names the option, what the method takes and what was given.
    """
    if asked.method not in METHODS:
        raise SurgeryError(f"--method: there is no {asked.method!r}; known are {', '.join(METHODS)}.")
    rule = METHODS[asked.method]
    cast = _cast(asked, rule)
    weights, parameters = _weights(asked, rule, cast.models), _parameters(asked, rule, cast.models)
    return Recipe.of(
        {role: Checkpoint.open(ref, allow_pickle=allow_pickle) for role, ref in cast.refs.items()},
        {"default": weights},
        method=asked.method,
        base=cast.base,
        like=cast.like,
        parameters={"default": parameters} if parameters else {},
        dtype=asked.dtype,
        seed=asked.seed,
    )


def _cast(asked: MethodArgs, rule: Method) -> RoleAssignment:
    """Give every model its part, and a role: what the method calls its part, or else a name from its own."""
    given = {_place(ref): ref for ref in asked.models}
    if len(given) < len(asked.models):
        raise SurgeryError(f"MODEL: one of {', '.join(asked.models)} is there twice; give each model once.")
    base = _base(asked, rule)
    start = None if base is None else _place(base)
    merged = [place for place in given if place != start]
    _check_count(asked, rule, len(merged))
    refs = given if start is None or base is None else {**given, start: base}
    if rule.named_inputs:
        roles = dict(
            zip([*merged, *(place for place in refs if place == start)], [*rule.named_inputs, "base"], strict=True)
        )
    else:
        names = (Path(os.path.abspath(ref)).name or "model" for ref in refs.values())
        roles = dict(zip(refs, unique_names(names), strict=True))
    like = asked.like or (asked.models[0] if asked.base is None else given[merged[0]])
    if _place(like) not in roles:
        raise SurgeryError(f"--like: {like} is none of the models; it is one of {', '.join(refs.values())}.")
    return RoleAssignment(
        {roles[place]: ref for place, ref in refs.items()},
        [roles[place] for place in merged],
        None if start is None else roles[start],
        roles[_place(like)],
    )


def _base(asked: MethodArgs, rule: Method) -> str | None:
    if asked.base is not None and not rule.needs_base:
        raise SurgeryError(f"--base: {asked.method} takes no deltas. Leave it out, or give it as one more MODEL.")
    if asked.base is None and rule.needs_base:
        if asked.method not in FROM_THE_FIRST:
            raise SurgeryError(f"{asked.method} takes deltas from a base: name it with --base.")
        return next(iter(asked.models), None)
    return asked.base


def _check_count(asked: MethodArgs, rule: Method, count: int) -> None:
    """A method wants so many models; one without a base wants two, or there is nothing to merge."""
    fewest, most = rule.models
    fewest = fewest if rule.needs_base else max(2, fewest)
    if fewest <= count <= (most or count):
        return
    wanted = f"{fewest}" if most == fewest else f"{fewest} or more" if most is None else f"{fewest} to {most}"
    models = [name.upper() for name in rule.named_inputs] or ["MODEL"] * fewest
    example = " ".join([*models, *(["--base BASE"] if rule.needs_base else []), "-o OUT"])
    beside = " beside the base" if rule.needs_base else ""
    raise SurgeryError(
        f"{asked.method} merges {wanted} model{'' if wanted == '1' else 's'}{beside}, and {count} "
        f"{'is' if count == 1 else 'are'} given: vlsurgery merge --method {asked.method} {example}"
    )


def _weights(asked: MethodArgs, rule: Method, models: Sequence[str]) -> dict[str, float]:
    """A weight for each model. Where a method's own is 0, the result would be the base: it must be said then."""
    if not asked.weights and not rule.coefficient.default:
        raise SurgeryError(
            f"{asked.method} has to be told {rule.coefficient.meaning} ({', '.join(models)}): "
            "add --weight, from 0 to 1."
        )
    for weight in asked.weights:
        check_range("--weight", weight, rule.coefficient.low, rule.coefficient.high)
    return _each("--weight", asked.weights or [float(rule.coefficient.default or 0.0)], models)


def _parameters(asked: MethodArgs, rule: Method, models: Sequence[str]) -> dict[str, Any]:
    """Every parameter of the method, as given or by its default: a recipe does not change when a default does."""
    found: dict[str, Any] = {name: parameter.default for name, parameter in rule.parameters.items()}
    for name, value in asked.parameters.items():
        if name not in rule.parameters:
            known = ", ".join(f"--{known}" for known in rule.parameters) or "none"
            raise SurgeryError(f"--{name}: {asked.method} has no such parameter; it has {known}.")
        if not isinstance(value, Sequence):
            found[name] = value
            continue
        for number in value:
            check_range(f"--{name}", number, rule.parameters[name].low, rule.parameters[name].high)
        if len(value) > 1 and not rule.parameters[name].per_model:
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
    return dict(zip(models, list(values) if len(values) == len(models) else list(values) * len(models), strict=True))


def _place(ref: str) -> str:
    """What two spellings of one directory have in common; a name on the Hub as it is."""
    parts = [ref] if os.path.isdir(ref) else ref.split("+")
    return "+".join(os.path.realpath(part) if os.path.isdir(part) else part for part in parts)
