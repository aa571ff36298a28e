"""The model card of a merged checkpoint: its parents, how it was merged, and how to reproduce it."""

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Final

import yaml

from vlsurgery.surgery.alignment import Alignment
from vlsurgery.surgery.merge.hub_parents import on_the_hub
from vlsurgery.surgery.merge.plan import MergePlan
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.recipe_keys import DEFAULT, EVERYWHERE
from vlsurgery.surgery.results import Mismatch
from vlsurgery.surgery.runtime.markdown import code, plain

_ORDER: Final = (
    "`recipe.yaml` beside this file is the complete order; the same files and the same version give the same bytes. "
    "Where the parents lie elsewhere, put their paths into it: their identities tell whether they are the same files."
)
_COMMAND: Final = "vlsurgery merge --recipe recipe.yaml -o OUT"
_CHECKSUMS: Final = (
    "`SHA256SUMS` holds what was written; `vlsurgery anatomy . --verify`, or `sha256sum -c SHA256SUMS`, compares."
)


def model_card(
    recipe: Recipe,
    alignment: Alignment,
    merge_plan: MergePlan,
    kept: int,
    mismatches: Sequence[Mismatch] = (),
    ignored: Iterable[str] = (),
) -> str:
    """README.md of a merge. kept: how many tensors kept their values. mismatches: of its parents. ignored: those that
    it was made in spite of."""
    command = " ".join([_COMMAND, *(f"--ignore-mismatch {name}" for name in ignored)])
    sections = [
        _front(recipe),
        f"# {code(recipe.like)}, merged by `{recipe.method}`",
        _summary(recipe, len(merge_plan.sites), kept),
        "## Parents",
        parents_table(recipe),
        "## Method",
        _method(recipe),
        "## Coefficients",
        "How much of each model goes in. The most specific key wins: site, block, component, layer, default, "
        "everywhere; a list runs along the layers.",
        _coefficients(recipe),
        *_parameters(recipe),
        *_mismatches(mismatches, list(alignment.checkpoints)),
        *_notes([*alignment.notes, *left_out(alignment), *_lacking(recipe, merge_plan)]),
        "## Limits",
        "None were set for this merge, so none were met or missed. The merge does not measure how its result behaves: "
        "`vlsurgery evaluate` does.",
        "## Reproduce",
        _ORDER,
        f"```\n{command}\n```",
        _CHECKSUMS,
    ]
    return "\n\n".join(sections) + "\n"


def left_out(alignment: Alignment) -> list[str]:
    """Notes on the tensors of the other roles that have no partner in `like`, by role and reason."""
    counts = Counter((each.role, each.reason) for each in alignment.unmatched if each.role != alignment.like)
    return [
        f"{role}: {count} tensor{' is' if count == 1 else 's are'} left out: {reason.rstrip('.')}."
        for (role, reason), count in counts.items()
    ]


def base_models(recipe: Recipe) -> list[str]:
    """The names of the parents that are models on the Hub, each once, in the order of the roles."""
    return list(dict.fromkeys(parent.name for ref in recipe.checkpoints.values() for parent in on_the_hub(ref)))


def _front(recipe: Recipe) -> str:
    """The metadata that the Hub reads; it names the parents that the Hub has, since a path would be a dead link."""
    names = base_models(recipe)
    parents = {"base_model": names, "base_model_relation": "merge"} if names else {}
    data = {"library_name": "transformers", **parents, "tags": ["merge", "vlsurgery"]}
    return f"---\n{yaml.safe_dump(data, sort_keys=False)}---"


def _summary(recipe: Recipe, changed: int, kept: int) -> str:
    others = [role for role in recipe.checkpoints if role != recipe.like]
    stored = "" if recipe.safetensors_dtype is None else f", but what is floating-point is stored as {recipe.dtype}"
    merged = f"{changed} of its {changed + kept} tensors" if kept else "all of its tensors"
    left = f", and {kept} left as {'it was' if kept == 1 else 'they were'}" if kept else ""
    like, maker = code(recipe.like), f"vlsurgery {version('vlsurgery')}"
    return (
        f"A checkpoint that {maker} made: {like} with {merged} merged with {_and(others)}{left}. "
        f"Names, shapes, config, tokenizer and processor are those of {like}{stored}."
    )


def parents_table(recipe: Recipe) -> str:
    """The parents in Markdown: role, place and identity of each."""
    return _table(("role", "checkpoint", "identity"), _parents(recipe))


def _parents(recipe: Recipe) -> Iterable[tuple[str, ...]]:
    for role, ref in recipe.checkpoints.items():
        hub = [f"{parent.name} at {parent.commit}" for parent in on_the_hub(ref)]
        pickled = ["pickled weights"] if ref.pickled else []
        place = "; ".join([code(ref.path), *hub, *pickled])
        yield code(role), place, code(ref.identity)


def _method(recipe: Recipe) -> str:
    origin = f" The base of all deltas is {code(recipe.origin)}." if recipe.origin else ""
    return (
        f"`{recipe.method}`: `{recipe.merge_method.formula}`, computed in float32.{origin}\n\n"
        f"Source: {recipe.merge_method.source}. "
        f"Seed, for methods that draw at random: {recipe.seed}."
    )


def _coefficients(recipe: Recipe) -> str:
    roles = [role for role in recipe.models if any(role in row for row in recipe.coefficients.values())]
    rows = [
        (plain(key), *(_value(row.get(role, 0.0)) for role in roles), plain(recipe.why.get(key, "")))
        for key, row in recipe.coefficients.items()
    ]
    rest = f"What no key speaks of is that of {code(recipe.like)}: vision tower and projector, unless they are named."
    return "\n\n".join([*([_table(("key", *map(plain, roles), "why"), rows)] if rows else []), rest])


def _parameters(recipe: Recipe) -> list[str]:
    """The parameters' values, key by key; and their defaults, where some site has them."""
    rows = []
    for name, parameter in recipe.merge_method.parameters.items():
        stated = [(plain(key), _value(values[name])) for key, values in recipe.parameters.items() if name in values]
        if not any(_covers(recipe, key, name) for key in (DEFAULT, EVERYWHERE)):
            stated.append(("elsewhere" if stated else "default", f"{_value(parameter.default)} (the method's own)"))
        rows += [(name, *each, parameter.meaning) for each in stated]
    return ["## Parameters", _table(("name", "key", "value", "meaning"), rows)] if rows else []


def _covers(recipe: Recipe, key: str, name: str) -> bool:
    """Whether a key sets a parameter for every model."""
    value = recipe.parameters.get(key, {}).get(name)
    return set(value) == set(recipe.models) if isinstance(value, dict) else value is not None


def _value(value: object) -> str:
    """A value as a recipe spells it: a number, a switch, a list, or one of these per model."""
    if isinstance(value, dict):
        return ", ".join(f"{plain(model)}: {_value(each)}" for model, each in value.items())
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()


def _lacking(recipe: Recipe, merge_plan: MergePlan) -> list[str]:
    return [
        f"{role} has no tensor at {count} site{' that was' if count == 1 else 's that were'} to be merged; "
        f"what {recipe.like} has there is as it was."
        for role, count in merge_plan.lacking.items()
    ]


def _mismatches(mismatches: Sequence[Mismatch], roles: Sequence[str]) -> list[str]:
    """The settings and tokens in which the parents differ; the result has those of the model that it is like."""
    rows = [
        tuple(map(plain, (each.name, *(each.values.get(role, "not stated") for role in roles), each.meaning)))
        for each in mismatches
    ]
    return ["## Where the parents differ", _table(("name", *map(plain, roles), "meaning"), rows)] if rows else []


def _notes(notes: Sequence[str]) -> list[str]:
    return ["## Notes", "\n".join(f"- {plain(note)}" for note in notes)] if notes else []


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _and(roles: Sequence[str]) -> str:
    words = [code(role) for role in roles]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
