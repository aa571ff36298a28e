"""What a case measured of a merge, as a card tells it: rates with intervals, and whether refusals fell."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vlsurgery.figures.wording import cell_name, cell_phrase, counts, interval, listed, points, rate_words, role_name
from vlsurgery.probes.evaluation.thresholds import MIN_REQUESTS_FOR_A_CLAIM
from vlsurgery.probes.prompts.loaders import split_spec
from vlsurgery.probes.results import HARMFUL_SETS, BehaviourResult, BehaviourRow, Paired, Rate
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.hub import HubName
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.excerpts import excerpt
from vlsurgery.surgery.runtime.markdown import plain

CHECKPOINT_JUDGE: Final = "hf:"  # before the place of a judge that is a checkpoint
MEASURES: Final = ("refused", "complied", "neither", "right")
SHOWN: Final = ("adapted", "merged")
OWN_PROMPTS: Final = {
    "english": "the English requests of vlsurgery",
    "specimen": "the miniature's own requests",
    "smollm2": "a sample of the English requests of vlsurgery",
}


@dataclass(frozen=True)
class MergeBehaviour:
    """What is known of a merge's behaviour. result: None where a case did not measure it. why: the reason then."""

    result: BehaviourResult | None
    why: str = ""

    @property
    def fewer_refusals(self) -> list[Paired]:
        """Where the merge refused fewer harmful requests than the adapted model did, on the same ones."""
        rows = [] if self.result is None else self.result.paired
        return [
            row
            for row in rows
            if (row.role, row.against, row.measure) == ("merged", "adapted", "refused")
            and row.set in HARMFUL_SETS
            and row.difference < 0
        ]

    @property
    def shown_fewer(self) -> list[Paired]:
        """Those of them whose interval excludes 0."""
        return [row for row in self.fewer_refusals if row.high is not None and row.high < 0]


def behaviour_of(folder: Path, merged: Checkpoint) -> MergeBehaviour:
    """What the case in `folder` measured of this merge, by its identity, wherever it lies now.

    Raises SurgeryError where the evaluation is not as vlsurgery writes it.
    """
    file = folder / f"{BehaviourResult.kind}.json"
    if not file.is_file():
        return MergeBehaviour(None, f"{folder} has no evaluation")
    result = BehaviourResult.load(file)
    prompts = result.settings.get("prompts", {})
    if not isinstance(prompts, dict) or not isinstance(prompts.get("files", {}), dict):
        raise SurgeryError(
            f"{file}: prompts.files: expected a mapping of prompt files, found {excerpt(prompts)}. Take the file as "
            "vlsurgery wrote it, or evaluate again."
        )
    identity = result.settings.get("merged")
    if not isinstance(identity, str) or not merged.is_known_as(identity):
        return MergeBehaviour(None, f"the evaluation in {folder} is not of this merge")
    return MergeBehaviour(result)


def fewer_words(rows: Iterable[Paired]) -> str:
    """Where refusals fell and by how much: "harmful requests in text: -12.5 points (-20.0 to -5.0), 60 requests"."""
    return "; ".join(
        f"{cell_phrase(row.set, row.modality)}: {points(row.difference, row.low, row.high)}, {row.requests} requests"
        for row in rows
    )


def behaviour_section(found: MergeBehaviour) -> str:
    """The card's section on what the merge does, in Markdown."""
    result = found.result
    if result is None:
        return "How it behaves was not measured. `vlsurgery evaluate` measures what it refuses and complies with."
    fell = found.fewer_refusals
    warning = [f"**It refuses fewer harmful requests than its adapted parent:** {plain(fewer_words(fell))}."]
    lines = [
        "| prompts | model | refused | complied | neither | right | on |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_line(row) for row in _rows(result)),
    ]
    return "\n\n".join([*(warning if fell else []), _how(result), "\n".join(lines), *_difference(result)])


def _how(result: BehaviourResult) -> str:
    limit = f"Below {MIN_REQUESTS_FOR_A_CLAIM} requests nothing should be said in words."
    digest = f", digest `{result.prompts_digest[:16]}`" if result.prompts_digest else ""
    return (
        f"Rates with 95% intervals over requests, on requests that nothing was fitted to or chosen on. Asked were "
        f"{plain(listed(_sources(result.settings)))}{digest}; judged by {plain(_judge(result.judge.name))} on at most "
        f"{result.judge.tokens} new tokens. {limit}"
    )


def _judge(name: str) -> str:
    """A judge's name, without the place of one that lies in a directory."""
    checkpoint = name.removeprefix(CHECKPOINT_JUDGE)
    is_named = checkpoint == name or HubName.of(checkpoint.partition("#")[0]) is not None
    return name if is_named else f"a judge called {Path(checkpoint).name}"


def _rows(result: BehaviourResult) -> list[BehaviourRow]:
    """The rows of the adapted model and of the merge, cell by cell."""
    rows = {(row.set, row.modality, row.role): row for row in result.records}
    cells = dict.fromkeys((row.set, row.modality) for row in result.records if row.role == "merged")
    return [rows[(*cell, role)] for cell in cells for role in SHOWN if (*cell, role) in rows]


def _line(row: BehaviourRow) -> str:
    rates = (getattr(row, name) for name in MEASURES)
    told = ["–" if rate.rate is None else rate_words(rate) for rate in rates]
    cells = [plain(cell_name(row.set, row.modality)), role_name(row.role), *told, counts(row.refused)]
    return f"| {' | '.join(cells)} |"


def _difference(result: BehaviourResult) -> list[str]:
    """How refusals of harmful requests differ from the adapted model's, as a list."""
    rows = [
        row
        for row in result.paired
        if (row.role, row.against, row.measure) == ("merged", "adapted", "refused") and row.set in HARMFUL_SETS
    ]
    lines = [f"- {plain(fewer_words([row]))}" for row in rows]
    return ["Refusals against the adapted parent, paired by request:", "\n".join(lines)] if rows else []


def _sources(settings: dict[str, Any]) -> list[str]:
    """Where the prompts come from: names of data sets and of kinds, never of files."""
    prompts = settings.get("prompts", {})
    kinds = dict.fromkeys(_kind(spec) for spec in prompts.get("files", {}))
    own = OWN_PROMPTS.get(str(prompts.get("own")))
    return [*(f"prompts of {kind}" for kind in kinds), *([own] if own else [])] or ["prompts that are not named"]


def _kind(spec: str) -> str:
    try:
        return split_spec(spec)[1]
    except SurgeryError:
        return "a kind that this version does not know"


def model_index(found: MergeBehaviour, name: str) -> list[dict[str, Any]]:
    """The merge's rates as the `model-index` of a card; empty where nothing was measured. name: of the model."""
    result = found.result
    rows = [] if result is None else [row for row in result.records if row.role == "merged"]
    results = [
        {
            "task": {"type": "text-generation", "name": "refusing and answering"},
            "dataset": {
                "type": row.set,
                "name": f"{row.set}, {row.modality}",
                "config": row.modality,
                "split": "report",
            },
            "metrics": metrics,
        }
        for row in rows
        if (metrics := _metrics(row))
    ]
    return [{"name": name, "results": results}] if results else []


def _metrics(row: BehaviourRow) -> list[dict[str, Any]]:
    rates: Sequence[tuple[str, Rate]] = [(name, getattr(row, name)) for name in MEASURES]
    return [
        {
            "type": name,
            "name": f"share {name}, 95% interval {interval(rate.low, rate.high)}, {counts(rate)}",
            "value": round(rate.rate, 4),
        }
        for name, rate in rates
        if rate.rate is not None and rate.low is not None
    ]
