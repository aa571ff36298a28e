"""`merge --method`: a merge of named models that needs no case and no recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from surgery.checkpoint import Checkpoint
from surgery.errors import SurgeryError
from surgery.methods import METHODS
from surgery.recipe import Recipe


@dataclass(frozen=True)
class Asked:
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


def recipe_of(asked: Asked, allow_pickle: bool = False) -> Recipe:
    """The recipe for it: the same weights in the whole language model.

    Without a base, slerp starts from the first model, and blend moves that one. The result has the tensors, config,
    tokenizer and vision tower of `like`: the first model unless one is named.
    """
    if asked.method not in METHODS:
        raise SurgeryError(f"--method: there is no {asked.method!r}; known are {', '.join(METHODS)}.")
    rule = METHODS[asked.method]
    refs = list(dict.fromkeys([*asked.models, *([asked.base] if asked.base else [])]))
    roles = dict(zip(refs, _roles(refs), strict=True))
    base = asked.base
    if base is None and rule.needs_base:
        if asked.method not in ("blend", "slerp"):
            raise SurgeryError(f"{asked.method} takes deltas from a base: name it with --base.")
        base = asked.models[0]
    if base is not None and not rule.needs_base:
        raise SurgeryError(f"{asked.method} takes no deltas: leave --base out, or give it as one more model.")
    models = [model for model in asked.models if model != base]
    if asked.like is not None and asked.like not in roles:
        raise SurgeryError(f"--like {asked.like}: is none of the models; it is one of {', '.join(refs)}.")
    names = dict(zip(models, rule.slots, strict=False)) if rule.slots else roles
    checkpoints = {names.get(ref, roles[ref]): Checkpoint.open(ref, allow_pickle=allow_pickle) for ref in refs}
    held = [names.get(model, roles[model]) for model in models]
    weights = _each("--weight", asked.weights, held) or dict.fromkeys(held, float(rule.weight.default or 0.0))
    like = asked.like or asked.models[0]
    return Recipe.of(
        checkpoints,
        {"default": weights},
        method=asked.method,
        base=None if base is None else names.get(base, roles[base]),
        like=names.get(like, roles[like]),
        parameters=_parameters(asked, held),
        dtype=asked.dtype,
        seed=asked.seed,
    )


def _parameters(asked: Asked, models: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The parameters that were given, by the rules of the method."""
    rule = METHODS[asked.method]
    given: dict[str, Any] = {}
    for name, value in asked.parameters.items():
        if name not in rule.parameters:
            known = ", ".join(f"--{known}" for known in rule.parameters) or "none"
            raise SurgeryError(f"--{name}: {asked.method} has no such parameter; it has {known}.")
        if not isinstance(value, Sequence):
            given[name] = value
        elif rule.parameters[name].per_model:
            given[name] = value[0] if len(value) == 1 else _each(f"--{name}", value, models)
        elif len(value) == 1:
            given[name] = value[0]
        else:
            raise SurgeryError(f"--{name}: is one number for all models, and {len(value)} were given.")
    return {"default": given} if given else {}


def _each(option: str, values: Sequence[float], models: Sequence[str]) -> dict[str, float]:
    """One value for each model, in their order, or the one for all; empty where none was given."""
    if len(values) not in (0, 1, len(models)):
        raise SurgeryError(
            f"{option} was given {len(values)} times for {len(models)} models beside the base ({', '.join(models)}): "
            "give it once for all, or once for each, in their order."
        )
    return dict(zip(models, list(values) * (len(models) if len(values) == 1 else 1), strict=False))


def _roles(refs: Sequence[str]) -> list[str]:
    """A short name for each model, the last part of its own; numbered where two would be the same."""
    names: list[str] = []
    for ref in refs:
        name = Path(ref.rstrip("/")).name or "model"
        same = sum(other == name or other.startswith(f"{name}-") for other in names)
        names.append(f"{name}-{same + 1}" if same else name)
    return names
