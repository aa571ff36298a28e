"""`vlsurgery merge`: choose coefficients, or take a recipe's, and write the merged checkpoint."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlsurgery.cli.options import CHECKPOINT_HELP, PickleOption, PromptsOption, Session, standard
from vlsurgery.surgery.errors import SurgeryError

if TYPE_CHECKING:
    from vlsurgery.surgery.merge.recipe import Recipe

# The keys of vlsurgery.surgery.methods.METHODS, which take too long to import for a help text; a test compares.
METHOD_NAMES = (
    "linear, slerp, task_arithmetic, ties, dare_linear, dare_ties, della, della_linear, breadcrumbs, breadcrumbs_ties, "
    "model_stock, safelora, safemerge, resta, blend"
)


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


class Dtype(StrEnum):
    """What floating-point tensors are stored as."""

    as_like = "as like"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def _numbers(name: str, meaning: str, of: str = "") -> Any:
    """An option that is given once, or once for each model."""
    return typer.Option(f"--{name}", metavar="NUMBER", help=f"With --method: {meaning}; {of or 'once, or per model'}.")


@standard
def merge(
    session: Session,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL ...]", help=f"With --method, what is merged. {CHECKPOINT_HELP}"),
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Choose coefficients for the case's checkpoints, merge, evaluate and report.")
    ] = False,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="Merge as this recipe.yaml says, ours or mergekit's; needs -o."),
    ] = None,
    method: Annotated[
        str | None, typer.Option("--method", metavar="NAME", help=f"Merge MODELs by one of {METHOD_NAMES}.")
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
        typer.Option("-o", "--out", metavar="OUT", help="Where the checkpoint goes. [default, with --auto: merged/]"),
    ] = None,
    prompts: PromptsOption = None,
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="With --method: what deltas are taken from.")
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="With --method: whose tensors, config, tokenizer and vision tower the result has. [default: the "
            "first MODEL that is not --base]",
        ),
    ] = None,
    weight: Annotated[list[float] | None, _numbers("weight", "how much of a model goes in; slerp's t")] = None,
    density: Annotated[list[float] | None, _numbers("density", "share of a delta's entries that are kept")] = None,
    strength: Annotated[list[float] | None, _numbers("lambda", "what the merged move is multiplied by", "once")] = None,
    gamma: Annotated[
        list[float] | None, _numbers("gamma", "breadcrumbs' share of outliers, or resta's strength")
    ] = None,
    epsilon: Annotated[list[float] | None, _numbers("epsilon", "della's spread around density")] = None,
    tau: Annotated[list[float] | None, _numbers("tau", "safelora's and safemerge's threshold", "once")] = None,
    share: Annotated[list[float] | None, _numbers("share", "safemerge's share of the safe model", "once")] = None,
    normalize: Annotated[
        bool | None, typer.Option("--normalize/--sum", help="With --method: divide by the sum of weights, or don't.")
    ] = None,
    rescale: Annotated[
        bool | None,
        typer.Option("--rescale/--no-rescale", help="With --method: make up for what was dropped at random, or don't."),
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="With --method: what floats are stored as.")] = Dtype.as_like,
    seed: Annotated[int, typer.Option(help="With --method: what random methods draw by.")] = 0,
    to_mergekit: Annotated[
        Path | None,
        typer.Option(
            "--to-mergekit",
            metavar="FILE",
            help="With --recipe or --method: merge nothing, but write the order as mergekit's YAML.",
        ),
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Read the result again, and compare it with what was hashed on writing."),
    ] = False,
    allow_pickle: PickleOption = False,
) -> None:
    """Write a merged checkpoint.

    With --auto: one that refuses again. The result is the adapted model with some of the base's weights (and of the
    safety-tuned model's) mixed in. Needs a case (vlsurgery diff opens one) and runs every step that is still missing:
    probe, choice of coefficients, merge, evaluation, report. Writes case/recipe.yaml, case/merged/ and
    case/report.html.
    With --method NAME MODEL ..., merges the language models of any checkpoints by a method of the field; with
    --recipe FILE, does what the recipe orders. Both only write the checkpoint, need -o and no case. A merge that was
    cut short goes on where it stopped when the same command is given again.

    \b
    Example:
      vlsurgery merge --auto
      vlsurgery merge --recipe case/recipe.yaml -o merged-again/
      vlsurgery merge --method ties llava/ llava-safe/ --base llama/ --density 0.5 -o merged/
    """
    if sum((auto, recipe is not None, method is not None)) != 1:
        raise SurgeryError("say how to merge: one of --auto, --recipe FILE -o OUT, or --method NAME MODEL ... -o OUT")
    numbers = {"density": density, "lambda": strength, "gamma": gamma, "epsilon": epsilon, "tau": tau, "share": share}
    switches = {"normalize": normalize, "rescale": rescale}
    told = {name: value for name, value in (numbers | switches).items() if value not in (None, [])}
    if method is None:
        whose = {"base": base, "like": like, "weight": weight, **dict.fromkeys(told, True)}
        _refuse({**whose, "dtype": dtype is not Dtype.as_like, "seed": seed}, "--method")
    if auto:
        from vlsurgery.cli.commands.merge_auto import merge_auto
        from vlsurgery.cli.workflow.engine import StepOptions

        _refuse({"to-mergekit": to_mergekit}, "--recipe and --method")
        _refuse_models(models, "--auto merges the case's checkpoints")
        merge_auto(session, StepOptions(tuple(prompts) if prompts else None, policy.value, toward.value, out), verify)
        return
    choice = {"policy": policy is not Policy.fit, "toward": toward is not Toward.both, "prompts": prompts}
    _refuse(choice, "--auto")
    if to_mergekit is not None and (out is not None or verify):
        raise SurgeryError("--to-mergekit merges nothing: leave -o and --verify out")
    if out is None and to_mergekit is None:
        raise SurgeryError("say where the merged checkpoint goes: add -o OUT")
    if recipe is not None:
        _refuse_models(models, "a recipe names its checkpoints")
        order = _ordered(recipe, allow_pickle)
    else:
        from vlsurgery.cli.commands.merge_method import MethodArgs, recipe_of

        asked = MethodArgs(method or "", models or [], base, like, weight or [], told, dtype.value, seed)
        order = recipe_of(asked, allow_pickle)
    _carry_out(session, order, out, to_mergekit, verify)


def _ordered(file: Path, allow_pickle: bool) -> "Recipe":
    """What a recipe orders, ours or mergekit's."""
    from vlsurgery.surgery.mergekit import load_recipe

    order = load_recipe(file)
    if not allow_pickle:
        return order
    refs = {role: ref.model_copy(update={"pickled": True}) for role, ref in order.checkpoints.items()}
    return order.model_copy(update={"checkpoints": refs})


def _carry_out(session: Session, order: "Recipe", out: Path | None, to_mergekit: Path | None, verify: bool) -> None:
    """Merge, or write the order for mergekit."""
    if to_mergekit is not None:
        from vlsurgery.cli.commands.to_mergekit import export_to_mergekit

        export_to_mergekit(session, order, to_mergekit)
    elif out is not None:
        from vlsurgery.cli.commands.merge_recipe import merge_by_recipe

        merge_by_recipe(session, order, out, verify)


def _refuse(options: Mapping[str, object], home: str) -> None:
    """Raise SurgeryError for an option that was given and would be passed over."""
    for name, given in options.items():
        if given:
            raise SurgeryError(f"--{name}: goes with {home} alone; leave it out.")


def _refuse_models(models: list[str] | None, why: str) -> None:
    if models:
        raise SurgeryError(f"{why}; {models[0]} is one too many")
