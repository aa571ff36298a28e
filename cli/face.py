"""The functions of `import vlsurgery`: what the commands do, with arguments in place of a case."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.free_evaluation import by_name
from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.alignment.roles import named_roles
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff import Level
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.results import DiffResult, MergeResult, Result
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.runtime.urls import WRITTEN_TO, refuse_url_path, refuse_urls

if TYPE_CHECKING:
    from vlsurgery.probes.evaluation.judges import Spec
    from vlsurgery.probes.models import RunDtype
    from vlsurgery.probes.prompts import Prompt
    from vlsurgery.probes.results import BehaviourResult, ProbeResult, Verdict

Model = str | Path | Checkpoint


def open(ref: Model, allow_pickle: bool = False, text_stack: str | None = None) -> Checkpoint:
    """A checkpoint by its directory, its name on the Hub, its URL, or BASE+ADAPTER; reads headers, never weights.

    allow_pickle: take pickled weights where there are no others; they are loaded as weights only. text_stack: the
    container of the language model's layers ("model.layers"), where two look like it.

    Raises CheckpointError that names the file and the next step.
    """
    if isinstance(ref, Checkpoint):
        return ref
    return Checkpoint.open(ref, allow_pickle=allow_pickle, text_stack=text_stack)


def diff(
    base: Model, adapted: Model, *safety: Model, level: Level = "full", progress: Progress = no_progress
) -> DiffResult:
    """How far every shared tensor moved from base to adapted and from adapted to the first of safety.

    level: `norms` leaves out what needs singular values, and takes a fraction of the time. Runs no model.

    Raises CheckpointError and AlignmentError that name the file or tensor.
    """
    from vlsurgery.surgery.diff.run import diff as measure

    return measure(_aligned(base, adapted, safety), level, progress)


def probe(
    base: Model,
    adapted: Model,
    *safety: Model,
    prompts: "Sequence[Prompt | str] | None" = None,
    dtype: "RunDtype" = "auto",
    device: str | None = None,
    progress: Progress = no_progress,
) -> "ProbeResult":
    """Where the models tell harmful from harmless, and which blocks lost refusals.

    prompts: `Prompt`s, or "FILE:KIND" as for `vlsurgery probe --prompts`; None: the package's own English sets. dtype,
        device: as `--dtype` and `--device` have them. Runs every model.
    """
    from vlsurgery.probes.models import Loader
    from vlsurgery.probes.probe import probe as look

    refuse_urls(map(_ref, (base, adapted, *safety)), "probe")
    how = Loader(dtype=dtype, device=device)
    return look(_aligned(base, adapted, safety), _prompts(prompts), progress, loader=how).result


def evaluate(
    *models: Model,
    prompts: "Sequence[Prompt | str] | None" = None,
    images: str | Path | None = None,
    judge: "Spec | Sequence[Spec]" = "standard",
    tokens: int = 128,
    completions: str | Path | None = None,
    dtype: "RunDtype" = "auto",
    device: str | None = None,
    progress: Progress = no_progress,
    **roles: Model,
) -> "BehaviourResult":
    """What models do: refused, complied and neither, with 95% intervals over requests.

    models: their directories' names become their roles. roles: role -> model; `base`, `adapted`, `safety` and `merged`
        are compared with one another. prompts: as for `probe`; asked are all of a file, and of others those of the
        `report` split. images: a directory of ordinary pictures for prompts of
        files. judge: as for `judge`; of several, the first makes the rates. tokens: of a completion, at most.
        completions: a file (.jsonl) that keeps what they say, from which an interrupted run goes on. dtype,
        device: as `--dtype` and `--device` have them.

    `.completions` of the result has every completion with its verdicts.
    """
    from vlsurgery.probes.evaluation.completions import CompletionFile
    from vlsurgery.probes.evaluation.evaluate import Asking, evaluate as measure
    from vlsurgery.probes.evaluation.judges import open_judge
    from vlsurgery.probes.evaluation.subjects import Subject
    from vlsurgery.probes.models import Loader

    refuse_urls(map(_ref, (*models, *roles.values())), "evaluate")
    named = {**by_name([open(model) for model in models]), **{role: open(model) for role, model in roles.items()}}
    if not named:
        raise SurgeryError("evaluate: give at least one model.")
    judges = [judge] if isinstance(judge, str) or not isinstance(judge, Sequence) else list(judge)
    file = None if completions is None else CompletionFile(Path(completions))
    asking = Asking(
        [open_judge(each) for each in judges],
        tokens,
        file,
        progress=progress,
        loader=Loader(dtype=dtype, device=device),
    )
    subjects = [Subject(role, checkpoint) for role, checkpoint in named.items()]
    refs = {role: checkpoint.ref_model for role, checkpoint in named.items()}
    return measure(subjects, _prompts(prompts, images, whole=True), 1, asking).model_copy(update={"checkpoints": refs})


def judge(
    completions: Sequence[str],
    prompts: "Sequence[Prompt | str | None] | None" = None,
    judge: "Spec" = "standard",
) -> "list[Verdict]":
    """What each completion does: a verdict with `.label` (refused, complied, neither), `.kind`, `.refused`, `.reason`.

    prompts: what was asked, one a completion; with them, off-topic answers and pictures' non-answers are told better.
    judge: `standard`, `rules`, `classifier`, `hf:MODEL` (a text classifier or guard model), a `Judge`, or a function of
        completions and prompts that gives one label each.

    Raises SurgeryError where lengths differ, or the judge fails or gives other than one verdict a completion.
    """
    from vlsurgery.probes.evaluation.judges import judge_texts

    return judge_texts(completions, prompts, judge)


def merge(
    order: "Recipe | str | Path",
    *models: Model,
    out: str | Path,
    base: Model | None = None,
    like: Model | None = None,
    coefficients: float | Sequence[float] = (),
    dtype: Literal["as like", "float32", "bfloat16", "float16"] = "as like",
    seed: int = 0,
    allow_pickle: bool = False,
    ignore_mismatches: Sequence[str] = (),
    progress: Progress = no_progress,
    **parameters: Any,
) -> MergeResult:
    """Write a merged checkpoint to `out`: by a recipe, or by a method of METHODS on the models.

    order: a Recipe, the path of a recipe.yaml (ours or mergekit's), or a method's name. base: what deltas are taken
        from. like: whose tensors, config and tokenizer the result has, by default the first model. coefficients: how
        much of each model goes in, one for all or one a model. parameters: of the method (density=.5); lists are one
        a model. allow_pickle: take pickled weights, of a recipe that says so too. ignore_mismatches: "tokens", to merge
        in spite of rows of the embedding that stand for other tokens. The rest goes with a method alone.

    Raises RecipeError, CheckpointError, AlignmentError or TargetError; `out` is then as it was.
    """
    from vlsurgery.surgery.merge.run import run_merge

    refuse_url_path(Path(out), WRITTEN_TO)
    recipe = order if isinstance(order, Recipe) else None
    if isinstance(order, Path) or (isinstance(order, str) and order.endswith((".yaml", ".yml"))):
        from vlsurgery.surgery.mergekit import load_recipe

        recipe = load_recipe(Path(order), allow_pickle)
    if recipe is None:
        from vlsurgery.cli.workflow.method_recipe import MethodArgs, recipe_of

        each = [coefficients] if isinstance(coefficients, int | float) else list(coefficients)
        refs = [_ref(model) for model in models]
        origin, shape = (None if model is None else _ref(model) for model in (base, like))
        asked = MethodArgs(str(order), refs, origin, shape, each, parameters, dtype, seed)
        opened = [model for model in (*models, base, like) if isinstance(model, Checkpoint)]
        stacks = dict.fromkeys(model.text_stack for model in opened if model.text_stack is not None)
        recipe, _ = recipe_of(asked, allow_pickle, list(stacks))
    elif models or parameters or base is not None or like is not None or coefficients:
        raise SurgeryError("merge: a recipe names its models, coefficients and parameters; give it alone, with out=.")
    return run_merge(recipe, Path(out), progress, ignored=ignore_mismatches)


class CaseResults:
    """The results of a case: `diff`, `probe`, `behaviour`, `completions`, `tradeoff` and `targets`, each None where it
    has none."""

    def __init__(self, case: Case) -> None:
        from vlsurgery.probes.evaluation.completions import FILE as COMPLETIONS, load_completions
        from vlsurgery.probes.results import BehaviourResult, ProbeResult, TargetsResult, TradeoffResult

        self.folder = case.folder
        self.diff = case.result(DiffResult)
        self.probe = case.result(ProbeResult)
        self.behaviour = case.result(BehaviourResult)
        self.tradeoff = case.result(TradeoffResult)
        self.targets = case.result(TargetsResult)
        said = case.path(COMPLETIONS)
        self.completions = load_completions(said) if said.is_file() else None

    @property
    def results(self) -> Mapping[str, Result]:
        """Name -> result, of those that the case has."""
        return {name: found for name, found in vars(self).items() if isinstance(found, Result)}

    def __repr__(self) -> str:
        lines = [f"  {name}: {result.headline()}" for name, result in self.results.items()]
        return "\n".join([f"Case({str(self.folder)!r})", *(lines or ["  nothing found yet"])])


def load_case(folder: str | Path) -> CaseResults:
    """The results of a case; its checkpoints need not be there. Raises SurgeryError where the folder holds no case."""
    return CaseResults(Case.open(folder))


def _aligned(base: Model, adapted: Model, safety: Sequence[Model]) -> Alignment:
    models = [base, adapted, *safety]
    names = named_roles(_ref(base), _ref(adapted), [_ref(model) for model in safety])
    return align({role: open(model) for role, model in zip(names, models, strict=True)})


def _ref(model: Model) -> str:
    return model.location if isinstance(model, Checkpoint) else str(model)


def _prompts(
    given: "Sequence[Prompt | str] | None", images: str | Path | None = None, whole: bool = False
) -> "list[Prompt]":
    """The prompts that a call gives, or the package's own. whole: put all prompts of files into `report`."""
    from vlsurgery.probes.prompts import english_prompts, load_prompt_files

    if given is None:
        return english_prompts()
    files = [each for each in given if isinstance(each, str)]
    loaded = load_prompt_files(files, images=None if images is None else Path(images)).prompts if files else []
    if whole:
        loaded = [replace(prompt, split="report") for prompt in loaded]
    return [*loaded, *(each for each in given if not isinstance(each, str))]
