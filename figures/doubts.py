"""What is wrong with a case as a whole: lines that stand in a box at the very top, before any number is read."""

import shlex
from typing import Any

from vlsurgery.figures.findings import roles_look_swapped
from vlsurgery.figures.wording import listed
from vlsurgery.probes.results import BehaviourResult, ProbeResult, TradeoffResult
from vlsurgery.surgery.results import Result

_FINDINGS = {"probe": "where safety was lost was found on", "tradeoff": "the merge was chosen on"}
_AGAIN = {"probe": ["vlsurgery", "probe"], "tradeoff": ["vlsurgery", "merge", "--auto"]}


def doubts(
    probe: ProbeResult | None, behaviour: BehaviourResult | None, tradeoff: TradeoffResult | None
) -> tuple[str, ...]:
    """Every doubt of a case, in words; backquotes enclose commands."""
    found = (mixed_prompts(probe, behaviour, tradeoff), roles_look_swapped(behaviour) if behaviour else None)
    return tuple(doubt for doubt in found if doubt)


def mixed_prompts(
    probe: ProbeResult | None, behaviour: BehaviourResult | None, tradeoff: TradeoffResult | None
) -> str | None:
    """That findings were made on other prompts than the rates, which prompts these were, and what to run.

    None where all were made on the same prompts, or a result doesn't say which.
    """
    if behaviour is None:
        return None
    rates = _digest(behaviour) or behaviour.prompts_digest
    if rates is None:
        return None
    others = [
        result
        for result in (probe, tradeoff)
        if result is not None and _digest(result) is not None and _digest(result) != rates
    ]
    if not others:
        return None
    what = listed([f"{_FINDINGS[result.kind]} {_source(result, _digest(result))}" for result in others])
    options = [part for file in _files(behaviour) for part in ("--prompts", file)]
    again = listed([f"`{shlex.join([*_AGAIN[result.kind], *options])}`" for result in others])
    return (
        f"Mixed prompts: the rates were measured on {_source(behaviour, rates)}, but {what}. Findings and rates speak"
        f" of different requests. To find and measure on the same ones, run {again} and `vlsurgery evaluate`."
    )


def _digest(result: Result) -> str | None:
    digest = _prompts(result).get("digest")
    return digest if isinstance(digest, str) else None


def _source(result: Result, digest: str | None) -> str:
    """Where prompts came from, told apart by digest: "harmful.jsonl:harmful [1f2e3d4c]"."""
    own = "the specimen's own prompts" if _prompts(result).get("own") == "specimen" else "the package's own prompts"
    return f"{listed(_files(result)) or own} [{(digest or '')[:8]}]"


def _files(result: Result) -> list[str]:
    """The user's files of prompts that a result was made with, as they were given: "FILE:KIND"."""
    files = _prompts(result).get("files")
    return sorted(map(str, files)) if isinstance(files, dict) else []


def _prompts(result: Result) -> dict[str, Any]:
    prompts = result.settings.get("prompts")
    return prompts if isinstance(prompts, dict) else {}
