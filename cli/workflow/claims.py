"""The claims on cases: each is brought to where it has all results, then all are measured together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vlsurgery.cli.options import Session
from vlsurgery.cli.outputs import check_output, is_claims_file
from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.choice import options_of
from vlsurgery.cli.workflow.engine import Flow, Job, StepOptions
from vlsurgery.cli.workflow.estimates import PlannedStep
from vlsurgery.cli.workflow.opening import CheckpointArgs, check_case_folder, perform
from vlsurgery.cli.workflow.planning import plan
from vlsurgery.cli.workflow.specimens import options_for, plan_specimen, train
from vlsurgery.cli.workflow.steps import STEPS
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError

if TYPE_CHECKING:
    from vlsurgery.probes.claims import CaseFindings
    from vlsurgery.probes.results import CompletionRecord

GOALS: Final = ("diff", "probe", "coefficients", "merge", "evaluate", "layers")
PER_BLOCK: Final = "linearised"  # the policy of the seeds' merges: C6 is about coefficients per block, won or lost
CONTROL_FILE: Final = "control.jsonl"
JSON: Final = "claims.json"
PAGE: Final = "claims.html"
DEFAULT_SEEDS: Final = "0,1,2"
INSTRUMENT: Final = (
    "The miniature's vocabulary has a few hundred words: a claim that holds on it shows that the instrument finds it, "
    "not that it holds of models in use. vlsurgery claims --real measures real weights."
)


@dataclass(frozen=True)
class ClaimSource:
    """A case that the claims are measured on. seed: of the specimen that it is opened on; None for a case that is there
    already. real: whether that specimen is the real trio."""

    name: str
    folder: Path
    seed: int | None = None
    real: bool = False


def sources_of(cases: Sequence[Path], real: bool | None, seeds: str | None, out: Path) -> list[ClaimSource]:
    """The user's cases, else one for each seed of the specimen, in `out`. Raises SurgeryError for a bad choice."""
    if not cases:
        kind = "real" if real else "miniature"
        found = _seeds(DEFAULT_SEEDS if seeds is None else seeds)
        return [ClaimSource(f"seed {seed}", out / f"{kind}-{seed}", seed, bool(real)) for seed in found]
    if real is not None or seeds is not None:
        raise SurgeryError("CASE: goes without --real, --miniature and --seeds, which name cases of their own.")
    if len({folder.resolve() for folder in cases}) < len(cases):
        raise SurgeryError(f"CASE: {', '.join(map(str, cases))} names a case twice. Name each once.")
    return [ClaimSource(str(folder), folder) for folder in cases]


def _seeds(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise SurgeryError(f"--seeds {text}: expected different numbers with commas between them, such as 0,1,2.")
    return [int(part) for part in parts]


def check_claims_folder(out: Path) -> None:
    """Refuse a folder that can't be written, before hours are spent. Raises TargetError."""
    check_case_folder(out)
    for name in (JSON, PAGE):
        check_output(out / name, is_claims_file, "one of vlsurgery claims", "-o")


def planned(sources: Sequence[ClaimSource]) -> list[PlannedStep]:
    """What every case would take; of the specimen's, as if nothing was there."""
    steps = []
    for source in sources:
        if source.seed is not None:
            steps += plan_specimen(source.real, source.seed, GOALS, f"{source.name}: ", control=True)
            continue
        options, goals = _missing(source.folder)
        flow = Flow(Job(Case.open(source.folder), options), STEPS)
        found = plan(flow.job, flow.pending(*goals))
        steps += [replace(step, step=f"{source.name}: {step.step}") for step in found]
    return steps


def _missing(folder: Path) -> tuple[StepOptions, list[str]]:
    """The goals that a case of the user's lacks, and the options to reach them with: as the case was merged before."""
    case = Case.open(folder)
    options = options_of(case.settings_of("coefficients") or {})
    flow = Flow(Job(case, options), STEPS)
    return options, [goal for goal in GOALS if not flow.is_current(goal)]


def measured_cases(
    session: Session, sources: Sequence[ClaimSource], new: bool = False
) -> "tuple[list[CaseFindings], list[str]]":
    """What every case has found, once the steps that the claims rest on are done; and what to know of the cases.

    new: move cases of other specimens aside.
    """
    from vlsurgery.probes.models import quiet_transformers

    quiet_transformers()
    found = []
    notes = [INSTRUMENT] if any(source.seed is not None and not source.real for source in sources) else []
    for source in sources:
        session.console.say(f"{source.name}: in {source.folder}")
        of_case = replace(session, case=source.folder)
        specimen = None
        if source.seed is None:
            options, goals = _missing(source.folder)
            flow = perform(of_case, options, *goals)
        else:
            specimen = train(source.real, source.seed, session.console, control=True)
            notes.append(f"{source.name}: {specimen.told}")
            options = replace(options_for(source.real), policy=PER_BLOCK)
            flow = perform(of_case, options, *GOALS, named=CheckpointArgs(specimen.roles, new))
        assert flow is not None  # it is None under --plan alone
        more = [] if specimen is None or specimen.control is None else _control(flow.job, specimen.control)
        found.append(_findings(flow.job.case, source.name, more))
    return found, notes


def _control(job: Job, checkpoint: Path) -> "Sequence[CompletionRecord]":
    """What the control says to the harmful requests of `report` in text, judged; kept in the case as it is said."""
    from vlsurgery.probes.claims.behaviour import CONTROL
    from vlsurgery.probes.evaluation.completions import CompletionFile
    from vlsurgery.probes.evaluation.evaluate import Asking, evaluate
    from vlsurgery.probes.evaluation.subjects import Subject

    asked = [p for p in job.prompts if (p.set, p.modality, p.split) == ("harmful", "text", "report")]
    source, file = job.judge_source, CompletionFile(job.case.path(CONTROL_FILE))
    asking = Asking(source.judges, source.tokens, file, (), job.progress, job.loader("evaluate"))
    said = evaluate([Subject(CONTROL, Checkpoint.open(checkpoint))], asked, job.case.looks, asking).completions
    assert said is not None  # an evaluation that was just made has them
    return said.records


def _findings(case: Case, name: str, more: "Sequence[CompletionRecord]" = ()) -> "CaseFindings":
    """What a case has found. more: completions of models that are no roles of it."""
    from vlsurgery.probes.claims import CaseFindings
    from vlsurgery.probes.evaluation.completions import FILE as COMPLETIONS, load_completions
    from vlsurgery.probes.results import LayersResult, TradeoffResult
    from vlsurgery.surgery.results import DiffResult

    said = load_completions(case.path(COMPLETIONS))
    return CaseFindings(
        name=name,
        diff=case.result(DiffResult),
        completions=said.model_copy(update={"records": [*said.records, *more]}),
        tradeoff=case.result(TradeoffResult),
        layers=case.result(LayersResult),
    )
