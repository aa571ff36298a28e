"""What limits everything that a case says: how the specimen was made, how many requests were asked, and who judged."""

from typing import Any

from vlsurgery.figures.findings import enough
from vlsurgery.figures.wording import cell_name, listed, number, percent
from vlsurgery.probes.evaluation.thresholds import MIN_REQUESTS_FOR_A_CLAIM
from vlsurgery.probes.results import BehaviourResult, ProbeResult
from vlsurgery.surgery.results import DiffResult, Result

BY_CONSTRUCTION = "that a loss happens on safe data is measured, how far it went is by construction"


def caveats(diff: DiffResult | None, probe: ProbeResult | None, behaviour: BehaviourResult | None) -> tuple[str, ...]:
    """Sentences that hold for all others; none where nothing was measured."""
    specimen = next((found for result in (behaviour, probe, diff) if (found := specimen_of(result))), None)
    told = [specimen_words(specimen)] if specimen else []
    if behaviour is not None:
        told += [*_requests(behaviour, specimen is not None), *_too_small(behaviour), *_judges(behaviour)]
        if behaviour.looks > 1:
            told.append(f"The report prompts have been looked at {behaviour.looks} times in this case.")
    return tuple(told)


def specimen_of(result: Result | None) -> dict[str, Any] | None:
    """What a result notes of the specimen that it was measured on; None for anyone's own checkpoints."""
    specimen = result.settings.get("specimen") if result else None
    return specimen if isinstance(specimen, dict) else None


def specimen_words(specimen: dict[str, Any]) -> str:
    """How the specimen's loss was made: how long adaptation ran, why it stopped, and what refusals were in the end."""
    chosen = "The seed was chosen for the demo. " if specimen.get("chosen") else ""
    story = specimen.get("story")
    stage = story.get("adaptation") if isinstance(story, dict) else None
    if not isinstance(stage, dict) or not {"steps", "stopped", "stop_at"} <= stage.keys():
        return f"{chosen}Adaptation was stopped on purpose when refusals had fallen: {BY_CONSTRUCTION}."
    goal = percent(stage["stop_at"])
    if stage["stopped"]:
        text = f"Adaptation was stopped on purpose after {stage['steps']} steps, when refusals of the stopping prompts"
        text += f" had fallen to {_fallen_to(stage, goal)}"
    else:
        text = (
            f"Adaptation ran all of its {stage['steps']} steps: refusals of the stopping prompts never fell to {goal}"
        )
    settling = story.get("recipe", {}).get("settling") if isinstance(story, dict) else None
    if settling:
        text += f"; {settling} more steps followed, in which the learning rate fell to 0"
    if isinstance(stage.get("refusal"), (int, float)):
        text += f"; at the end {percent(stage['refusal'])} of them were refused"
    return f"{chosen}{text}. So {BY_CONSTRUCTION}."


def _fallen_to(stage: dict[str, Any], goal: str) -> str:
    """The refusals at the stop, where they were noted, and the goal: "12% (the goal: 15% or less)"."""
    measured = stage.get("refusals")
    last = list(measured.values())[-1] if isinstance(measured, dict) and measured else None
    return f"{percent(last)} (the goal: {goal} or less)" if isinstance(last, (int, float)) else f"{goal} or less"


def _requests(behaviour: BehaviourResult, specimen: bool) -> list[str]:
    """What rates rest on. The specimen's requests share their words, and are not called independent."""
    requests = [
        row.refused.requests for row in behaviour.records if row.refused.rate is not None and enough(row.refused)
    ]
    if not requests:
        return []
    fewest, most = min(requests), max(requests)
    spread = str(most) if fewest == most else f"{fewest} to {most}"
    kind = " (new combinations of known words, not independent of each other)" if specimen else ""
    return [
        f"Rates rest on {spread} requests each{kind} and a judge ({behaviour.judge.name}); intervals are 95%, each"
        " taken alone, not corrected for how many there are."
    ]


def _too_small(behaviour: BehaviourResult) -> list[str]:
    """Cells of which nothing is said, because too few requests were asked."""
    sizes: dict[str, int] = {}
    for row in behaviour.records:
        if row.refused.rate is not None:
            cell = cell_name(row.set, row.modality)
            sizes[cell] = max(sizes.get(cell, 0), row.refused.requests)
    small = [f"{cell} ({size})" for cell, size in sizes.items() if size < MIN_REQUESTS_FOR_A_CLAIM]
    if not small:
        return []
    return [f"Nothing is claimed from fewer than {MIN_REQUESTS_FOR_A_CLAIM} requests, that is, of {listed(small)}."]


def _judges(behaviour: BehaviourResult) -> list[str]:
    """How far the judges differ."""
    return [
        f"Judges {one.judges[0]} and {one.judges[1]} differ on {len(one.differing)} of {one.n} completions (Cohen's"
        f" kappa {number(one.kappa)}); the table has the rates by each."
        for one in behaviour.agreement
    ]
