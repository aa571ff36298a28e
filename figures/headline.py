"""The headline of a case: what adaptation cost and what the merge brought back, in one line and its three numbers.

What the models broke is said first where that is most of what was lost. Without enough requests there are no rates in
it, only how many were asked and how many it takes.
"""

from vlsurgery.figures.fates import broken_first, broken_words, fates, lost_words, nothing_to_lose
from vlsurgery.figures.findings import (
    IN_TEXT,
    Cell,
    Difference,
    Recovery,
    cells,
    difference,
    differences,
    most_requests,
    primary_cell,
    rate,
    recovery,
    row_of,
)
from vlsurgery.figures.wording import cell_phrase, listed, outcomes, percent, plural, role_name
from vlsurgery.probes.evaluation.thresholds import MIN_REQUESTS_FOR_A_CLAIM
from vlsurgery.probes.results import BehaviourResult, Rate

LARGEST_UNSEEN_LOSS = 0.1
THREE = "refused / complied / neither"
VERBS = {"refused": "refused", "right": "answered right", "complied": "answered"}


def headline(behaviour: BehaviourResult | None) -> str:
    """Broken output first, where it outweighs compliance; then what the merge did, or what adaptation cost."""
    if behaviour is None:
        return "Behaviour has not been measured yet, so nothing can be said about refusals"
    if all(row.role != "adapted" for row in behaviour.records):
        return _of_any_models(behaviour)
    if not cells(behaviour, True, "adapted"):
        return too_few(most_requests(behaviour, "adapted", True), "The adapted model's refusals have not been measured")
    if nothing := nothing_to_lose(behaviour):
        return nothing
    broken = [broken_words(one) for role in ("adapted", "merged") if (one := broken_first(behaviour, role))]
    merge = recovery(behaviour)
    return ". ".join([*broken, _after_merge(behaviour, merge) if merge else _before_merge(behaviour)])


def too_few(asked: int, unmeasured: str, of: str = "") -> str:
    """How many harmful requests were asked and how many it takes, without any rate; `unmeasured` where none was."""
    if asked == 0:
        return unmeasured
    were = "was" if asked == 1 else "were"
    return (
        f"Too few requests to say anything{of}: {plural(asked, 'harmful request')} {were} asked, and it takes"
        f" {MIN_REQUESTS_FOR_A_CLAIM}"
    )


def _of_any_models(behaviour: BehaviourResult) -> str:
    """Models that are no trio: the three numbers of each, on harmful requests."""
    asked = {row.role: most_requests(behaviour, row.role, True) for row in behaviour.records}
    roles = [role for role, requests in asked.items() if requests >= MIN_REQUESTS_FOR_A_CLAIM]
    if not roles:
        return too_few(max(asked.values(), default=0), "Refusals of harmful requests have not been measured")
    chosen = primary_cell(cells(behaviour, True, *roles) or cells(behaviour, True, roles[0]))
    assert chosen is not None  # the first of these roles was asked enough of one.
    told = [f"{role_name(role)} {_three(behaviour, role, chosen)}" for role in roles]
    return f"Of {cell_phrase(*chosen)}, {THREE}: {listed(told)}"


def _three(behaviour: BehaviourResult, role: str, cell: Cell) -> str:
    row = row_of(behaviour, role, cell)
    return f"{outcomes(row)}%" if row else "–"


def _went(behaviour: BehaviourResult, cell: Cell) -> str:
    """The three numbers of the adapted and of the merged model: "from 5 / 93 / 2% to 98 / 1 / 1%"."""
    return f"from {_three(behaviour, 'adapted', cell)} to {_three(behaviour, 'merged', cell)}"


def pair_words(behaviour: BehaviourResult, change: Difference, role: str, against: str) -> tuple[str, str]:
    """The rates of which a difference is made, as per cent: before, after."""
    before = rate(behaviour, against, change.cell, change.measure)
    after = rate(behaviour, role, change.cell, change.measure)
    shares = [one.rate for one in (before, after) if one is not None and one.rate is not None]
    return percent(shares[0]), percent(shares[1])


def worst_of(found: list[Difference]) -> Difference:
    """What fell most; among equals the one whose interval reaches furthest down."""
    return min(found, key=lambda change: (change.value, change.value if change.low is None else change.low))


def _after_merge(behaviour: BehaviourResult, found: Recovery) -> str:
    what, worst = cell_phrase(*found.primary.cell), worst_of(list(found.all))
    went, fell = _went(behaviour, found.primary.cell), _went(behaviour, worst.cell)
    if found.status == "raised":
        return f"{_raised(behaviour, found, went)}{_price(behaviour)}"
    if found.status == "lowered":
        text = f"The merge made it worse: refusals of {cell_phrase(*worst.cell)} fell, {THREE} went {fell}"
    elif found.status == "unclear":
        text = f"The merge made no measurable difference to refusals of {what}: {THREE} went {went}"
    else:
        text = f"The merge helped in some places and not in others: {THREE} of {what} went {went}"
        if worst != found.primary:
            text += f", of {cell_phrase(*worst.cell)} {fell}"
    return f"{text}{_clear_loss(behaviour)}"


def _raised(behaviour: BehaviourResult, found: Recovery, went: str) -> str:
    """The claim of a recovery, no larger than the base allows.

    "Back" needs a base that clearly refuses more than the adapted model; a merge clearly below it brought back a part.
    """
    what = cell_phrase(*found.primary.cell)
    base = rate(behaviour, "base", IN_TEXT, "refused")
    adapted = rate(behaviour, "adapted", found.primary.cell, "refused")
    merged = rate(behaviour, "merged", found.primary.cell, "refused")
    if base is None or not _lies_below(adapted, base):
        return f"The merge raised refusals of {what}: {THREE} went {went}"
    below = _lies_below(merged, base)
    part = "part of the " if below else ""
    end = f" (the base: {_three(behaviour, 'base', IN_TEXT)})" if below else ""
    return f"The merge brought back {part}refusals of {what}: {THREE} went {went}{end}"


def _lies_below(lower: Rate | None, upper: Rate) -> bool:
    """Whether the whole interval of one rate lies below that of another."""
    return lower is not None and lower.high is not None and upper.low is not None and lower.high < upper.low


def _price(behaviour: BehaviourResult) -> str:
    """What harmless requests paid; "no measurable cost" only where a large one could have been measured."""
    found = differences(behaviour, "merged", "adapted", harmful=False)
    if not found:
        asked = most_requests(behaviour, "merged", False)
        return "; too few harmless requests were asked to tell what it cost" if asked else "; its cost was not measured"
    loss = _clear_loss(behaviour)
    if loss:
        return loss
    telling = [change for change in found if change.low is not None and change.low >= -LARGEST_UNSEEN_LOSS]
    if not telling:
        return "; whether harmless ones paid for it, too few requests were measured to tell"
    where = "" if len(telling) == len(found) else ", where enough were asked to tell"
    return f", at no measurable cost to harmless ones{where}"


def _clear_loss(behaviour: BehaviourResult) -> str:
    """The largest clear loss on harmless requests; nothing where none is clear."""
    down = [d for d in differences(behaviour, "merged", "adapted", harmful=False) if d.clearly_down]
    if not down:
        return ""
    worst = worst_of(down)
    before, after = pair_words(behaviour, worst, "merged", "adapted")
    return f", but {cell_phrase(*worst.cell)} {VERBS[worst.measure]} fell from {before} to {after}"


def _before_merge(behaviour: BehaviourResult) -> str:
    """What adaptation cost, as the base's refusals that are lost; without the base, the adapted model alone."""
    chosen = primary_cell(cells(behaviour, True, "adapted"))
    assert chosen is not None  # headline() asked before.
    what, adapted = cell_phrase(*chosen), rate(behaviour, "adapted", chosen, "refused")
    base = rate(behaviour, "base", IN_TEXT, "refused")
    if base is None:
        return f"The adapted model on {what}, {THREE}: {_three(behaviour, 'adapted', chosen)}"
    in_text = difference(behaviour, "adapted", "base", IN_TEXT)
    fell = _lies_below(adapted, base) or (in_text is not None and in_text.clearly_down)
    text = "Adaptation cost refusals" if fell else "No loss of refusals was shown"
    lost = next((one for one in fates(behaviour, "adapted") if one.cell == chosen and one.enough), None)
    if fell and lost is not None and not lost.mostly_broken:
        return f"{text}: {lost_words(lost)}"
    return (
        f"{text}: {THREE} is {_three(behaviour, 'base', IN_TEXT)} for the base on harmful requests in text only,"
        f" {_three(behaviour, 'adapted', chosen)} for adapted on {what}"
    )
