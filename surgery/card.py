"""The model card of a merged checkpoint: where it comes from, what was done, and how to do it again."""

from surgery.alignment import Alignment
from surgery.methods import METHODS
from surgery.recipe import Recipe

FRONT = """---
library_name: transformers
tags:
- merge
- vlsurgery
---
"""


def model_card(recipe: Recipe, alignment: Alignment, blended: int, kept: int) -> str:
    """README.md of a merge. blended, kept: how many tensors were changed, and how many kept their bytes."""
    method = METHODS[recipe.method]
    parents = [f"| {role} | `{ref.path}` | `{ref.identity}` |" for role, ref in recipe.checkpoints.items()]
    roles = sorted({role for shares in recipe.coefficients.values() for role in shares})
    rows = [
        f"| {key} | {' | '.join(f'{shares.get(role, 0.0):.4g}' for role in roles)} | {_cell(recipe.why.get(key, ''))} |"
        for key, shares in recipe.coefficients.items()
    ]
    lines = [
        FRONT,
        f"# A merge made by vlsurgery {_version()}",
        "",
        f"The `{recipe.like}` checkpoint below, with {blended} of its {blended + kept} tensors moved toward the others "
        f"and {kept} left byte for byte as they were. Tensors, shapes, dtypes, config, tokenizer and processor are "
        f"those of `{recipe.like}`.",
        "",
        "## Parents",
        "",
        "| role | path | identity |",
        "|---|---|---|",
        *parents,
        "",
        "## Method",
        "",
        f"`{recipe.method}`: {method.formula}",
        "",
        f"Source: {method.source}.",
        "",
        "## Coefficients",
        "",
        "The most specific key wins: site, block, component, layer, default. Vision tower and projector are the "
        "adapted model's unless they are named.",
        "",
        f"| key | {' | '.join(roles)} | why |",
        f"|---|{'---|' * len(roles)}---|",
        *rows,
        *(["", "## Notes", "", *(f"- {note}" for note in alignment.notes)] if alignment.notes else []),
        "",
        "## Reproduce",
        "",
        "`recipe.yaml` beside this file is the complete order; the same files give the same bytes:",
        "",
        "```",
        "vlsurgery merge --recipe recipe.yaml -o OUT",
        "```",
        "",
        "How the merged model behaves was not measured by the merge itself: `vlsurgery evaluate` does that.",
    ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _version() -> str:
    from importlib.metadata import version

    return version("vlsurgery")
