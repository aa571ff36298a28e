"""`vlsurgery merge`: choose coefficients, or take a recipe's, and write the merged checkpoint."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.options import PromptsOption, Session, standard
from surgery.errors import SurgeryError


class Policy(StrEnum):
    """How coefficients are chosen."""

    fit = "fit"
    attribution = "attribution"
    weights = "weights"
    uniform = "uniform"


class Toward(StrEnum):
    """What is mixed into the adapted model."""

    base = "base"
    safety = "safety"
    both = "both"


@standard
def merge(
    session: Session,
    auto: Annotated[
        bool, typer.Option("--auto", help="Choose coefficients for the case's checkpoints, merge, evaluate and report.")
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", metavar="FILE", help="Merge as this recipe.yaml says; needs -o.")
    ] = None,
    policy: Annotated[
        Policy,
        typer.Option(
            help="With --auto, how coefficients are chosen: fit (by gradient, block by block), attribution (where "
            "refusals were lost), weights (where weights moved) or uniform (one strength everywhere)."
        ),
    ] = Policy.fit,
    toward: Annotated[
        Toward,
        typer.Option(help="With --auto, what is mixed into the adapted model. Without a safety checkpoint: base only."),
    ] = Toward.both,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="OUT", help="Where the checkpoint goes. [default: merged/ in the case]"),
    ] = None,
    prompts: PromptsOption = None,
) -> None:
    """Write a merged checkpoint that refuses again.

    The result is the adapted model with some of the base's weights (and of the safety-tuned model's) mixed in.

    With --auto, needs a case (vlsurgery diff opens one) and runs every step that is still missing: probe, choice of
    coefficients, merge, evaluation, report. Writes case/recipe.yaml, case/merged/ and case/report.html.
    With --recipe FILE, only writes the checkpoint that the recipe orders.

    \b
    Example:
      vlsurgery merge --auto
      vlsurgery merge --recipe case/recipe.yaml -o merged-again/
    """
    if auto == (recipe is not None):
        raise SurgeryError("say how to merge: either --auto, or --recipe FILE -o OUT")
    if recipe is not None:
        if out is None:
            raise SurgeryError("--recipe needs to be told where the merged checkpoint goes: add -o OUT")
        from cli.by_recipe import merge_by_recipe

        merge_by_recipe(session, recipe, out)
        return
    from cli.auto import merge_auto
    from cli.flow import Wishes

    merge_auto(session, Wishes(tuple(prompts) if prompts else None, policy.value, toward.value, out))
