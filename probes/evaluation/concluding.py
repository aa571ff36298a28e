"""From completions to a result: judged, kept with their verdicts, counted. Imports no torch."""

from collections.abc import Sequence

from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.evaluation.judges import Judge
from vlsurgery.probes.evaluation.judging import judged, used
from vlsurgery.probes.evaluation.tabulate import Measured, tabulate
from vlsurgery.probes.results import BehaviourResult, CompletionRecord
from vlsurgery.surgery.runtime.progress import Progress, no_progress


def conclude(
    records: Sequence[CompletionRecord],
    judges: Sequence[Judge],
    tokens: int,
    measured: Measured,
    file: CompletionFile | None = None,
    progress: Progress = no_progress,
) -> BehaviourResult:
    """The behaviour that completions of any models show.

    tokens: of a completion, at most. file: where they are kept, in place of what it held. Raises SurgeryError where a
    judge fails.
    """
    verdicts = judged(records, judges, progress)
    if file is not None:
        file.replace(verdicts)
    return tabulate(verdicts, used(judges, tokens), measured)
