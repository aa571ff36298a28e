"""From a time to a sample: as many requests as the planned time allows."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vlsurgery.cli.workflow.engine import Job
from vlsurgery.cli.workflow.estimates import about
from vlsurgery.cli.workflow.prompt_source import SEED, PromptSource, prompt_source_of
from vlsurgery.cli.workflow.sample import Sample, budget_seconds, sampled, shares
from vlsurgery.surgery.errors import SurgeryError

if TYPE_CHECKING:
    from vlsurgery.probes.prompts import Prompt


def sample_of(job: Job, budget: str, steps: tuple[str, ...]) -> Sample:
    """The sample of a case's prompts with which the steps take about the time of the budget.

    The same budget as these steps had last gives the same sample, however fast the machine is now. Raises SurgeryError
    where the smallest sample takes longer.
    """
    recorded = Sample.recorded((job.case.settings_of(steps[0]) or {}).get("prompts", {}))
    if (recorded.budget, recorded.steps) == (budget, steps):
        return recorded
    from vlsurgery.cli.workflow.sizes import sizes_of

    source = prompt_source_of(job.case, job.options.prompts, job.options.images, Sample())

    def seconds(prompts: "Sequence[Prompt]") -> float:
        sizes = sizes_of(job, prompts, is_merged="coefficients" in steps or job.case.settings_of("merge") is not None)
        return sum(map(sizes.seconds, steps))

    return replace(fitting(source, budget, seconds), steps=steps)


def fitting(source: PromptSource, budget: str, seconds: "Callable[[Sequence[Prompt]], float]") -> Sample:
    """The largest sample of a source's prompts that takes at most the time of the budget.

    seconds: how long prompts take; more never take less. Raises SurgeryError where the smallest takes longer.
    """
    most = budget_seconds(budget)
    if most is None:
        return Sample()
    every = source.every
    least = seconds(sampled(every, 0.0, SEED))
    if least > most:
        raise SurgeryError(
            f"--budget {budget}: the fewest requests that show anything take {about(least)} here. Give more, or fewer "
            "kinds with --prompts."
        )
    choices = shares(every, SEED)
    at = bisect_right(choices, most, key=lambda share: seconds(sampled(every, share, SEED)))
    return Sample(budget, choices[max(0, at - 1)])
