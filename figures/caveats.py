"""What limits everything that a case says: how the specimen was made, how many requests were asked, and who judged."""

from typing import Any

from vlsurgery.figures.findings import enough
from vlsurgery.figures.wording import cell_name, listed, number
from vlsurgery.probes.evaluation.thresholds import MIN_REQUESTS_FOR_A_CLAIM
from vlsurgery.probes.results import BehaviourResult, ProbeResult
from vlsurgery.surgery.results import DiffResult, Result

# Of specimens of earlier versions, whose story has no words.
STOPPED = (
    "Adaptation was stopped on purpose when refusals had fallen: that a loss happens on safe data is measured, how far"
    " it went is by construction."
)


def caveats(diff: DiffResult | None, probe: ProbeResult | None, behaviour: BehaviourResult | None) -> tuple[str, ...]:
    """Sentences that hold for all others; none where nothing was measured."""
    specimen = next((found for result in (behaviour, probe, diff) if (found := specimen_of(result))), None)
    told = [specimen_words(specimen)] if specimen else _trio_words(behaviour, probe)
    if behaviour is not None:
        told += [*_requests(behaviour, specimen is not None), *_too_small(behaviour), *_judges(behaviour)]
        if behaviour.looks > 1:
            told.append(f"The report prompts have been looked at {behaviour.looks} times in this case.")
    return tuple(told)


def specimen_of(result: Result | None) -> dict[str, Any] | None:
    """What a result notes of the specimen that it was measured on; None for anyone's own checkpoints."""
    specimen = result.settings.get("specimen") if result else None
    return specimen if isinstance(specimen, dict) else None


def _trio_words(*results: Result | None) -> list[str]:
    """What the real trio is, where a result was measured on it."""
    told = [each.settings["trio"]["told"] for each in results if each is not None and "trio" in each.settings]
    return told[:1]


def specimen_words(specimen: dict[str, Any]) -> str:
    """How the specimen's loss was made, as its own story tells it."""
    chosen = "The seed was chosen for the demo. " if specimen.get("chosen") else ""
    story = specimen.get("story")
    stage = story.get("adaptation") if isinstance(story, dict) else None
    told = stage.get("told") if isinstance(stage, dict) else None
    return f"{chosen}{told or STOPPED}"


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
