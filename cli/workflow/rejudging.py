"""The rates of a case made again from the completions that it has: by other judges, or with a human's labels."""

from vlsurgery.cli.workflow.case import Case
from vlsurgery.cli.workflow.engine import Flow, Job, StepOptions
from vlsurgery.cli.workflow.human_labels import with_human_labels
from vlsurgery.cli.workflow.judge_source import recorded_judge_source
from vlsurgery.cli.workflow.reproduction import write_reproduction
from vlsurgery.cli.workflow.steps import STEPS
from vlsurgery.probes.evaluation.completions import FILE, CompletionFile, load_completions
from vlsurgery.probes.evaluation.judging import judged, used
from vlsurgery.probes.evaluation.tabulate import Divergence, Measured, tabulate
from vlsurgery.probes.results import BehaviourResult, BehaviourRow
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.progress import Progress, no_progress

STEP = "evaluate"


def judge_again(
    case: Case, options: StepOptions, progress: Progress = no_progress, write: bool = True
) -> BehaviourResult:
    """The behaviour of a case under the judges of `options`, from its completions; saved in the case.

    Runs no model of the case. Divergences, looks and notes are those of the evaluation.

    Raises SurgeryError where the case was not evaluated, or a judge fails; the case is then as it was.
    """
    old, settings = case.result(BehaviourResult), case.settings_of(STEP)
    if old is None or settings is None:
        raise SurgeryError(f"{case.folder}: was not evaluated yet. Run `vlsurgery evaluate` first.")
    source = recorded_judge_source(case, options)
    completions = load_completions(case.path(FILE)).records
    records = judged(completions, source.judges, progress)
    divergences: dict[str, dict[tuple[str, str], Divergence]] = {}
    for row in old.records:
        divergences.setdefault(row.role, {})[row.set, row.modality] = _divergence(row)
    measured = Measured(divergences, old.looks, old.notes)
    result = with_human_labels(case, tabulate(records, used(source.judges, source.tokens), measured))
    if write:
        CompletionFile(case.path(FILE)).replace(records)
        stamped = result.model_copy(update={"checkpoints": old.checkpoints})
        files = [case.path("behaviour.json"), case.path(FILE)]
        case.rewrite(STEP, stamped, {**settings, **source.settings}, files)
        write_reproduction(Flow(Job(case), STEPS))
    return result


def _divergence(row: BehaviourRow) -> Divergence:
    return row.kl, row.kl_reason
