"""The whole case in a headline and a few plain sentences, each with its figures and no more than they allow.

The words come from the numbers by fixed rules (figures/findings.py): a recovery is claimed only where refusals of
the merged model lie above the adapted one's with an interval that excludes zero, and nothing else fell.
"""

from dataclasses import dataclass

from vlsurgery.figures import safety_map
from vlsurgery.figures.caveats import caveats
from vlsurgery.figures.fates import broken_places, fates, lost_words, nothing_to_lose, one_sided
from vlsurgery.figures.findings import (
    Cell,
    cells,
    differences,
    measure_for,
    most_requests,
    primary_cell,
    rate,
    recovery,
    row_of,
    weakest,
)
from vlsurgery.figures.headline import VERBS, headline, pair_words, too_few, worst_of
from vlsurgery.figures.wording import cell_phrase, listed, number, percent, points, rate_words, signed
from vlsurgery.probes.results import BehaviourResult, ProbeResult, TradeoffResult
from vlsurgery.surgery.results import DiffResult

WORST_MAP_ERROR = 0.15
WORST_RANK_CORRELATION = 0.7


@dataclass(frozen=True)
class Conclusion:
    """A headline, a few sentences that bear it out, and the limits of all of them."""

    headline: str
    sentences: tuple[str, ...]
    limits: tuple[str, ...]


def verdict(
    diff: DiffResult | None,
    probe: ProbeResult | None,
    behaviour: BehaviourResult | None,
    tradeoff: TradeoffResult | None,
) -> Conclusion:
    """Say what the results say. Any of them may be missing; what is missing is named with the command that makes it."""
    sentences = [*_first(behaviour), _loss(behaviour), _where(probe)]
    if behaviour is None:
        sentences.append(_tried(tradeoff))
    else:
        sentences += [_brought_back(behaviour), _price(behaviour), _uniform(behaviour, tradeoff), _tuned(behaviour)]
    told = tuple(sentence for sentence in sentences if sentence)
    return Conclusion(headline(behaviour), told, caveats(diff, probe, behaviour))


def _first(behaviour: BehaviourResult | None) -> list[str]:
    """What must be known before any rate is read: nothing to lose, broken output, models that can't say no or yes."""
    if behaviour is None:
        return []
    nothing = nothing_to_lose(behaviour)
    broken = [broken_places(behaviour, role) for role in ("adapted", "merged")]
    return [f"{words}." for words in [nothing, *broken, *one_sided(behaviour)] if words]


def _words(behaviour: BehaviourResult, role: str, cell: Cell) -> str:
    """A role's deciding rate on a cell, with its interval."""
    found = rate(behaviour, role, cell, measure_for(behaviour, (role,), cell))
    return rate_words(found) if found else "an unmeasured share"


def _three_rates(behaviour: BehaviourResult, role: str, cell: Cell) -> str:
    """All three of a role's rates on a harmful cell: "92% (87–96%), complies with 6% and does neither on 2%"."""
    row = row_of(behaviour, role, cell)
    if row is None or row.complied.rate is None or row.neither.rate is None:
        return _words(behaviour, role, cell)
    rest = f"complies with {percent(row.complied.rate)} and does neither on {percent(row.neither.rate)}"
    return f"{_words(behaviour, role, cell)}, {rest}"


def _loss(behaviour: BehaviourResult | None) -> str:
    """What adaptation cost: the base's refusals against the adapted model's, in text and with a picture, and what
    became of those that the base makes."""
    if behaviour is None:
        return "What the models do has not been measured: run `vlsurgery evaluate`."
    chosen = primary_cell(cells(behaviour, True, "adapted"))
    if chosen is None:
        return ""
    kind, in_text = f"{chosen[0]} requests", (chosen[0], "text")
    parts = []
    if rate(behaviour, "adapted", in_text, "refused"):
        parts.append(f"in text only it refuses {_three_rates(behaviour, 'adapted', in_text)}")
    if chosen != in_text:
        where = cell_phrase(*chosen).partition("requests ")[2]
        parts.append(f"{where} it refuses {_three_rates(behaviour, 'adapted', chosen)}")
    if rate(behaviour, "base", in_text, "refused") is None:
        row = row_of(behaviour, "base", in_text)
        few = row.refused.requests if row else 0
        why = f"was asked too few of them ({few}) for a claim" if few else "was not measured"
        return f"Of {kind} put to the adapted model, {'; '.join(parts)}; the base {why}."
    adapted = f"of the same ones put to the adapted model, {'; '.join(parts)}"
    lost = [lost_words(one) for one in fates(behaviour, "adapted")[:1] if one.enough and not one.mostly_broken]
    return "; ".join([f"The base refuses {_words(behaviour, 'base', in_text)} of {kind}", adapted, *lost]) + "."


def _where(probe: ProbeResult | None) -> str:
    """Which blocks the loss was traced to, how far the map can be trusted, and the ceiling."""
    if probe is None:
        return "Where the refusals went has not been traced: run `vlsurgery probe`. Weight change does not tell it."
    found = safety_map.compute(probe)
    if not found.top or found.top_share is None:
        text = "No block was found whose return to the base brings refusals back."
    else:
        names = listed([block.place.block for block in found.clear])
        share = percent(sum(block.share or 0.0 for block in found.clear))
        text = f"Traced back to blocks, {share} of the lost refusal log-odds sits in {names}"
        text = text if found.clear else _unnamed(found)
        text += f"{_trust(found)}."
    ceiling = probe.ceiling
    if ceiling is not None and ceiling.graft_refused.rate is not None:
        text += (
            f" With the whole language model put back (the graft), {rate_words(ceiling.graft_refused)} of the base's"
            " own refusals return: the ceiling of what the base's weights can bring back."
        )
    return text


def _unnamed(found: safety_map.SafetyMapInfo) -> str:
    """Why no block is named."""
    if found.null is not None and found.null.reason is not None:
        return "Traced back to blocks, the loss was not held against a null, so that none is named"
    if found.null is not None and not found.null.found:
        return "Traced back to blocks, none brings back lost refusals more than permuted prompts do"
    return "Traced back to blocks, the loss is spread out: none stands clear of the others"


def _trust(found: safety_map.SafetyMapInfo) -> str:
    """How the map did in its two checks, plainly where it failed one."""
    checks = found.completeness
    if checks is None:
        return ", by a map that was not checked"
    doubts = []
    if checks.error is None or checks.error > WORST_MAP_ERROR:
        doubts.append(f"it sums to {number(checks.total)} nats where {number(checks.measured)} were measured")
    if checks.rank_correlation is not None and checks.rank_correlation < WORST_RANK_CORRELATION:
        doubts.append(f"single transplants agree only with rank correlation {number(checks.rank_correlation)}")
    if doubts:
        return f"; read this map with care, for {listed(doubts)}"
    return f" (the map sums to {number(checks.total)} nats, {number(checks.measured)} were measured)"


def _brought_back(behaviour: BehaviourResult) -> str:
    """Refusals of the merged model: the primary cell as a difference, then the weakest cell."""
    found = recovery(behaviour)
    if found is None:
        missing = "No merged model has been measured: run `vlsurgery merge --auto`, then `vlsurgery evaluate`"
        return f"{too_few(most_requests(behaviour, 'merged', True), missing, ' of the merged model')}."
    one = found.primary
    text = f"Of {cell_phrase(*one.cell)} the merged model refuses {_three_rates(behaviour, 'merged', one.cell)}"
    text += f"; {points(one.value, one.low, one.high)} refused against the adapted model"
    if found.weakest != one.cell:
        text += f"; it is weakest on {cell_phrase(*found.weakest)}, {_words(behaviour, 'merged', found.weakest)}"
    fallen = [cell_phrase(*change.cell) for change in found.all if change.clearly_down]
    if fallen:
        text += f"; refusals clearly fell on {listed(fallen)}"
    return f"{text}."


def _price(behaviour: BehaviourResult) -> str:
    """What the merge took from harmless requests; where no loss shows, how large a one the intervals still allow."""
    found = differences(behaviour, "merged", "adapted", harmful=False)
    if not found:
        return ""
    down = [change for change in found if change.clearly_down]
    worst = worst_of(down or found)
    before, after = pair_words(behaviour, worst, "merged", "adapted")
    where = f"{cell_phrase(*worst.cell)} {VERBS[worst.measure]} went from {before} to {after}"
    change = points(worst.value, worst.low, worst.high)
    if down:
        return f"The price: {where}, {change}; {len(down)} of {len(found)} harmless comparisons clearly fell."
    return f"No loss on harmless requests could be shown; where most was lost, {where}, {change}."


def _uniform(behaviour: BehaviourResult, tradeoff: TradeoffResult | None) -> str:
    """The best uniform merge beside ours, comparison by comparison."""
    harmful = differences(behaviour, "merged", "merged:uniform", harmful=True)
    found = harmful + differences(behaviour, "merged", "merged:uniform", harmful=False)
    if not found:
        return "" if recovery(behaviour) is None else "The best uniform merge was not measured beside it."
    point = tradeoff.chosen("uniform") if tradeoff else None
    strengths = [f"{name} {number(value)}" for name, value in point.parameters.items()] if point else []
    if tradeoff and tradeoff.policy == "uniform":
        return f"The merge is the best uniform one ({', '.join(strengths)}){_not_better(tradeoff)}."
    name = f"The best uniform merge ({', '.join(strengths)})" if strengths else "The best uniform merge"
    parts = [_weakest_words(behaviour, "merged:uniform", harm) for harm in (True, False)]
    parts = [part for part in parts if part]
    ahead, behind = sum(d.clearly_up for d in found), sum(d.clearly_down for d in found)
    return (
        f"{name}, where it is weakest, {listed(parts)}; of {len(found)} comparisons the merge is clearly ahead"
        f" in {ahead} and clearly behind in {behind}."
    )


def _not_better(tradeoff: TradeoffResult) -> str:
    """Why the uniform merge was written, where coefficients by block were measured beside it."""
    found = next((each for each in tradeoff.comparisons if each.against == "linearised"), None)
    if found is None:
        return ""
    gain, low, high = (signed(-value) for value in (found.difference, found.high, found.low))
    return f": coefficients block by block were not clearly better ({gain} nats of the objective, {low} to {high})"


def _tuned(behaviour: BehaviourResult) -> str:
    """Safety tuning as the alternative: what it refuses, and what it pays."""
    parts = [_weakest_words(behaviour, "safety", harm) for harm in (True, False)]
    parts = [part for part in parts if part]
    return f"Safety tuning instead, where it is weakest, {listed(parts)}." if parts else ""


def _weakest_words(behaviour: BehaviourResult, role: str, harmful: bool) -> str:
    """Where a role does least of what one wants: "refuses 92% (82–97%) of harmful requests with a blank picture"."""
    cell = weakest(behaviour, role, harmful)
    if cell is None:
        return ""
    verb = "refuses" if harmful else "answers"
    right = " right" if measure_for(behaviour, (role,), cell) == "right" else ""
    return f"{verb} {_words(behaviour, role, cell)} of {cell_phrase(*cell)}{right}"


def _tried(tradeoff: TradeoffResult | None) -> str:
    """Before any evaluation, what the search saw on its own prompts, named as such."""
    point = tradeoff.chosen(tradeoff.policy) if tradeoff else None
    if point is None:
        return "No merge has been made: run `vlsurgery merge --auto`."
    return (
        f"The merge was chosen where {percent(point.refusal)} of harmful prompts are refused and"
        f" {percent(point.capability)} of the others answered as before, on the prompts that it was chosen by."
    )
