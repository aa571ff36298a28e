"""The model card of a merged checkpoint: where it comes from, what was done, and how to do it again."""

from surgery.alignment import Alignment
from surgery.jobs import Orders
from surgery.recipe import Recipe

FRONT = """---
library_name: transformers
tags:
- merge
- vlsurgery
---
"""


def model_card(recipe: Recipe, alignment: Alignment, asked: Orders, kept: int) -> str:
    """README.md of a merge. kept: how many tensors kept their bytes."""
    changed = len(asked.jobs)
    origin = f" Deltas are taken from `{recipe.origin}`." if recipe.origin else ""
    lines = [
        FRONT,
        f"# A merge made by vlsurgery {_version()}",
        "",
        f"The `{recipe.like}` checkpoint below, with {changed} of its {changed + kept} tensors merged with the others "
        f"and {kept} left byte for byte as they were. Tensors, shapes, config, tokenizer and processor are those of "
        f"`{recipe.like}`; dtypes: {recipe.dtype}.",
        "",
        "## Parents",
        "",
        "| role | path | identity |",
        "|---|---|---|",
        *(f"| {role} | `{ref.path}` | `{ref.identity}` |" for role, ref in recipe.checkpoints.items()),
        "",
        "## Method",
        "",
        f"`{recipe.method}`: {recipe.rule.formula}.{origin}",
        "",
        f"Source: {recipe.rule.source}.",
        "",
        *_weights(recipe),
        *_parameters(recipe),
        *_section("Notes", [*alignment.notes, *_lacking(asked)]),
        "## Limits",
        "",
        "None were set for this merge. How the merged model behaves was not measured by the merge itself: "
        "`vlsurgery evaluate` does that.",
        "",
        "## Reproduce",
        "",
        "`recipe.yaml` beside this file is the complete order; the same files give the same bytes:",
        "",
        "```",
        "vlsurgery merge --recipe recipe.yaml -o OUT",
        "```",
        "",
        "`SHA256SUMS` holds what was written; `vlsurgery anatomy . --verify` compares.",
    ]
    return "\n".join(lines) + "\n"


def _weights(recipe: Recipe) -> list[str]:
    """The table of coefficients."""
    roles = sorted({role for shares in recipe.coefficients.values() for role in shares})
    rows = [
        f"| {key} | {' | '.join(_number(shares.get(role, 0.0)) for role in roles)} | {_cell(recipe.why.get(key, ''))} |"
        for key, shares in recipe.coefficients.items()
    ]
    return [
        "## Coefficients",
        "",
        "The most specific key wins: site, block, component, layer, default, everywhere. Vision tower and projector "
        f"are those of `{recipe.like}` unless they are named.",
        "",
        f"| key | {' | '.join(roles)} | why |",
        f"|---|{'---|' * len(roles)}---|",
        *rows,
        "",
    ]


def _parameters(recipe: Recipe) -> list[str]:
    """The method's parameters where no key says otherwise, and what the keys say."""
    if not recipe.rule.parameters:
        return []
    rows = [
        f"| {name} | its default | {rule.default} | {rule.meaning} |" for name, rule in recipe.rule.parameters.items()
    ]
    rows += [
        f"| {name} | {key} | {_cell(str(value))} | {recipe.rule.parameters[name].meaning} |"
        for key, values in recipe.parameters.items()
        for name, value in values.items()
    ]
    return ["## Parameters", "", "| name | key | value | meaning |", "|---|---|---|---|", *rows, ""]


def _lacking(asked: Orders) -> list[str]:
    return [
        f"{role} has no tensor at {count} sites that were to be merged; they are as they were."
        for role, count in asked.lacking.items()
    ]


def _section(title: str, notes: list[str]) -> list[str]:
    return [f"## {title}", "", *(f"- {note}" for note in notes), ""] if notes else []


def _number(share: float | list[float]) -> str:
    return f"[{', '.join(f'{number:.4g}' for number in share)}]" if isinstance(share, list) else f"{share:.4g}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _version() -> str:
    from importlib.metadata import version

    return version("vlsurgery")
