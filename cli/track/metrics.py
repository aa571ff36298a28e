"""Results as numbers with names, for a tracker. Names hold roles, prompt sets, kinds of picture and blocks; no text."""

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Final

from vlsurgery.probes.results import BehaviourResult, BlockGain, ProbeResult, Rate, TradeoffResult

MEASURES: Final = ("refused", "complied", "neither", "right", "lost", "broken")

Named = tuple[str, float | None]


def behaviour_metrics(result: BehaviourResult) -> dict[str, float]:
    """ "rate/merged/harmful/text/refused", with its interval under ".low" and ".high" and the requests it rests on;
    "difference/merged-adapted/..." for what was paired."""
    return _known(_behaviour(result))


def _behaviour(result: BehaviourResult) -> Iterator[Named]:
    pairs = [role for each in result.paired for role in (each.role, each.against)]
    names = without_places([*(row.role for row in result.records), *pairs])
    for row in result.records:
        for measure in MEASURES:
            yield from _rate(f"rate/{names[row.role]}/{row.set}/{row.modality}/{measure}", getattr(row, measure))
        yield f"kl/{names[row.role]}/{row.set}/{row.modality}", row.kl
    for each in result.paired:
        pair = "-".join(names[role] for role in (each.role, each.against))
        yield from _bounded(
            f"difference/{pair}/{each.set}/{each.modality}/{each.measure}", each.difference, each.low, each.high
        )


def without_places(roles: Iterable[str]) -> dict[str, str]:
    """Role -> a name of it without a directory. A model whose directory is called as another's has its whole path for a
    role, of which the last part is left, with a number."""
    found: dict[str, str] = {}
    for role in dict.fromkeys(roles):
        last = re.split(r"[/\\]", role.rstrip("/\\"))[-1]
        numbered = (f"{last}-{number}" for number in itertools.count(2))
        found[role] = next(name for name in itertools.chain([last], numbered) if name not in found.values())
    return found


def probe_metrics(result: ProbeResult) -> dict[str, float]:
    """ "gain/0.mlp": what moving a block to the base gives back, in nats, with its interval; how far the map sums up to
    what was measured, and what adapted and graft refuse."""
    return _known(_probe(result))


def _probe(result: ProbeResult) -> Iterator[Named]:
    for block, gain in result.block_gains().items():
        yield from _gain(block, gain)
    if result.completeness is not None:
        yield from (
            ("attribution/total", result.completeness.total),
            ("attribution/measured", result.completeness.measured),
            ("attribution/error", result.completeness.error),
        )
    if result.ceiling is not None:
        yield from _rate("ceiling/adapted/refused", result.ceiling.adapted_refused)
        yield from _rate("ceiling/graft/refused", result.ceiling.graft_refused)


def _gain(block: str, gain: BlockGain) -> Iterator[Named]:
    yield from _bounded(f"gain/{block}", gain.gain, gain.low, gain.high)
    yield f"gain/{block}.share", gain.share


def tradeoff_metrics(result: TradeoffResult) -> dict[str, float]:
    """ "coefficient/0.mlp/base" of the merge that was written, with its interval where there is one; its objective in
    nats, and the shares that it was chosen by, on the prompts kept for the choice."""
    return _known(_tradeoff(result))


def _tradeoff(result: TradeoffResult) -> Iterator[Named]:
    chosen = result.chosen()
    if chosen is None:
        return
    for block, row in (chosen.coefficients or {}).items():
        for source, coefficient in row.items():
            low, high = (chosen.intervals or {}).get(block, {}).get(source, (None, None))
            yield from _bounded(f"coefficient/{block}/{source}", coefficient, low, high)
    yield "choice/objective", chosen.objective
    if chosen.rates is not None:
        for name in ("refusal", "over_refusal", "sight"):
            yield from _rate(f"choice/{name}", getattr(chosen.rates, name))


def _rate(name: str, rate: Rate) -> Iterator[Named]:
    yield from _bounded(name, rate.rate, rate.low, rate.high)
    if rate.rate is not None:
        yield f"{name}.requests", rate.requests


def _bounded(name: str, value: float | None, low: float | None, high: float | None) -> Iterator[Named]:
    yield from ((name, value), (f"{name}.low", low), (f"{name}.high", high))


def _known(named: Iterator[Named]) -> dict[str, float]:
    """Those that could be had."""
    return {name: float(value) for name, value in named if value is not None}
