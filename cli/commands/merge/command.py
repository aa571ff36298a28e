"""`vlsurgery merge`: choose coefficients or take those of a recipe, and write the merged checkpoint."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from vlsurgery.cli.options import (
    HELP_SETTINGS,
    WEIGHTS_HELP,
    BudgetOption,
    ImagesOption,
    LimitsOption,
    PickleOption,
    PromptsOption,
    RayOption,
    Running,
    Session,
    TextStackOption,
    TrackOption,
    runs_models,
    standard,
)
from vlsurgery.probes.policies import Policy, Toward
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.urls import WRITTEN_TO, refuse_url_path

if TYPE_CHECKING:
    from vlsurgery.surgery.merge.recipe import Recipe

FRONTIER_POINTS: Final = 20
PRICE_RANGE: Final = (0.01, 100.0)
Dtype = Literal["as like", "auto", "float32", "bfloat16", "float16"]


def merge_command() -> Any:
    """The click command, with an option for every parameter of a method in METHODS."""
    from vlsurgery.cli.commands.merge.options import with_method_options

    program = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    program.command("merge", context_settings=HELP_SETTINGS)(standard(with_method_options(merge)))
    return typer.main.get_command(program)


def merge_outline() -> None:
    """Stands for `merge` in the list of commands: its options need METHODS, which is slow to import."""


@runs_models
def merge(
    session: Session,
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL ...]", help=f"With --method, what is merged. {WEIGHTS_HELP}"),
    ] = None,
    auto: Annotated[
        bool, typer.Option("--auto", help="Choose coefficients for the case's checkpoints, merge, evaluate and report.")
    ] = False,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="Merge as this recipe.yaml says, ours or mergekit's; needs -o."),
    ] = None,
    method: str | None = None,
    policy: Annotated[
        Policy,
        typer.Option(
            help="With --auto, how coefficients are chosen: best (uniform or linearised, whichever does better on "
            "prompts kept for the choice), linearised (block by block, from the gradient of every prompt), uniform "
            "(the same ones everywhere), fit (by many gradient steps), attribution (where refusals were lost) or "
            "weights (where weights moved)."
        ),
    ] = "best",
    sparse: Annotated[
        bool,
        typer.Option(
            "--sparse",
            help="With --auto and linearised coefficients: those that could be 0, by their interval, become 0.",
        ),
    ] = False,
    extrapolate: Annotated[
        bool,
        typer.Option(
            "--extrapolate",
            help="With --auto and linearised coefficients: let them exceed 1, up to 1.5, so that the merge lies beyond "
            "its models. Never below 0.",
        ),
    ] = False,
    frontier: Annotated[
        bool,
        typer.Option(
            "--frontier",
            help="With --auto: also measure linearised merges from strict to lax, and draw them beside the others.",
        ),
    ] = False,
    points: Annotated[
        int | None,
        typer.Option(
            "--points", metavar="N", min=2, max=200, help="With --frontier: how many, at most 200. [default: 20]"
        ),
    ] = None,
    price: Annotated[
        float | None,
        typer.Option(
            "--price",
            metavar="X",
            help="With --auto: write the linearised merge for which an over-refusal costs as much as X refusals that "
            "are missing [0.01 to 100; the usual price is 2]. The report shows what each price buys.",
        ),
    ] = None,
    toward: Annotated[
        Toward,
        typer.Option(help="With --auto, what is mixed into the adapted model. Without a safety checkpoint: base only."),
    ] = "both",
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="OUT", help="Where the checkpoint goes. [default, with --auto: merged/]"),
    ] = None,
    prompts: PromptsOption = None,
    images: ImagesOption = None,
    budget: BudgetOption = None,
    limits: LimitsOption = None,
    write_anyway: Annotated[
        bool,
        typer.Option(
            "--write-anyway",
            help="With --auto --limits: where no merge is found that keeps the limits, write the nearest one.",
        ),
    ] = False,
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
    weight: Annotated[
        list[float] | None,
        typer.Option(
            "--weight",
            metavar="NUMBER",
            help="With --method: the coefficient, how much of a model goes in (slerp's t); once, or per model.",
        ),
    ] = None,
    parameters: Any = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            help="With --method: what floats are stored as [default: as like]. With --auto: what the running models' "
            "weights are held in [default: auto, the stored one where the device multiplies it fast, else float32]."
        ),
    ] = None,
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
        typer.Option("--verify", help="Read checkpoints and result again, and compare them with what was hashed."),
    ] = False,
    ignore_mismatch: Annotated[
        list[str] | None,
        typer.Option(
            "--ignore-mismatch",
            metavar="NAME",
            help="Merge in spite of a mismatch of the checkpoints, by its name in the table: tokens, where rows of "
            "embedding and head stand for other tokens.",
        ),
    ] = None,
    track: TrackOption = None,
    running: Running = Running(),  # noqa: B008
    ray: RayOption = None,
    allow_pickle: PickleOption = False,
    text_stack: TextStackOption = None,
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
    for target in (out, to_mergekit):
        if target is not None:
            refuse_url_path(target, WRITTEN_TO)
    if method is None:
        own = {"base": base, "like": like, "weight": weight, **dict.fromkeys(parameters, True)}
        _refuse({**own, "dtype": dtype is not None and not auto, "seed": seed}, "--method")
    if dtype == ("as like" if auto else "auto"):
        raise SurgeryError(f"--dtype {dtype}: goes with {'--method' if auto else '--auto'}. Leave it out.")
    if auto:
        from vlsurgery.cli.commands.merge.auto import merge_auto
        from vlsurgery.cli.workflow.engine import StepOptions

        _refuse({"to-mergekit": to_mergekit, "text-stack": text_stack}, "--recipe and --method")
        _refuse_models(models, "--auto merges the case's checkpoints")
        given_for = {"sparse": sparse, "extrapolate": extrapolate, "frontier": frontier, "price": price is not None}
        for name, given in given_for.items():
            if given and policy not in ("best", "linearised"):
                raise SurgeryError(f"--{name}: goes with --policy linearised or best, not {policy}. Leave it out.")
        if points is not None and not frontier:
            raise SurgeryError("--points: goes with --frontier alone; leave it out.")
        if price is not None and not PRICE_RANGE[0] <= price <= PRICE_RANGE[1]:
            raise SurgeryError(f"--price {price:g}: expected a number from {PRICE_RANGE[0]:g} to {PRICE_RANGE[1]:g}.")
        if write_anyway and limits is None:
            raise SurgeryError("--write-anyway: goes with --limits alone; leave it out.")
        if price is not None and sparse:
            raise SurgeryError("--price and --sparse: each chooses other coefficients; leave one out.")
        options = StepOptions(
            prompts=prompts or None,
            images=images,
            budget=budget,
            policy=policy,
            sparse=sparse,
            extrapolate=extrapolate,
            frontier=(points or FRONTIER_POINTS) if frontier else 0,
            price=price,
            write_anyway=write_anyway,
            toward=toward,
            out=out,
            running=running,
            ignored=tuple(ignore_mismatch or ()),
            ray=ray,
        )
        merge_auto(session, options, verify, limits, allow_pickle, track)
        return
    _refuse({"policy": policy != "best", "sparse": sparse, "frontier": frontier, "toward": toward != "both"}, "--auto")
    _refuse(
        {
            "price": price is not None,
            "points": points is not None,
            "prompts": prompts,
            "images": images,
            "limits": limits,
        },
        "--auto",
    )
    _refuse({"track": track, "budget": budget, "write-anyway": write_anyway, "extrapolate": extrapolate}, "--auto")
    _refuse({name.replace("_", "-"): value for name, value in asdict(replace(running, dtype=None)).items()}, "--auto")
    if to_mergekit is not None and (out is not None or verify or ray is not None):
        raise SurgeryError("--to-mergekit merges nothing: leave -o, --verify and --ray out")
    if out is None and to_mergekit is None:
        raise SurgeryError("say where the merged checkpoint goes: add -o OUT")
    if recipe is not None:
        _refuse_models(models, "a recipe names its checkpoints")
        order, opened = _load(recipe, allow_pickle, text_stack or ()), None
    else:
        from vlsurgery.cli.workflow.method_recipe import MethodArgs, recipe_of

        args = MethodArgs(method or "", models or [], base, like, weight or [], parameters, dtype or "as like", seed)
        order, opened = recipe_of(args, allow_pickle, text_stack or ())
    if to_mergekit is not None:
        from vlsurgery.cli.commands.merge.export import export_to_mergekit

        export_to_mergekit(session, order, to_mergekit)
    elif out is not None:
        from vlsurgery.cli.commands.merge.by_recipe import merge_by_recipe

        merge_by_recipe(session, order, out, verify, opened, ignore_mismatch or (), ray)


merge_outline.__doc__ = merge.__doc__


def _load(file: Path, allow_pickle: bool, text_stacks: Sequence[str]) -> "Recipe":
    """The recipe in a file, ours or mergekit's. With leave to take pickled weights, it says which checkpoints have no
    others."""
    from vlsurgery.surgery.checkpoint import Checkpoint
    from vlsurgery.surgery.mergekit import load_recipe

    order = load_recipe(file, allow_pickle, text_stacks)
    if not allow_pickle:
        return order
    refs = {}
    for role, ref in order.checkpoints.items():
        allowed = ref.model_copy(update={"pickled": True})
        refs[role] = allowed.model_copy(update={"pickled": Checkpoint.reopen(allowed).pickled})
    return order.model_copy(update={"checkpoints": refs})


def _refuse(options: Mapping[str, object], home: str) -> None:
    """Raise SurgeryError for an option that was given and would have no effect."""
    for name, given in options.items():
        if given:
            raise SurgeryError(f"--{name}: goes with {home} alone; leave it out.")


def _refuse_models(models: list[str] | None, why: str) -> None:
    if models:
        raise SurgeryError(f"{why}; {models[0]} is one too many")
