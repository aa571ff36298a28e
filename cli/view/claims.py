"""The claims as tables and sentences."""

from rich.console import RenderableType
from rich.text import Text

from vlsurgery.cli.view.tables import ABSENT, plain_table, prose
from vlsurgery.figures.wording import number, signed
from vlsurgery.probes.results import ClaimEvidence, ClaimsResult


def claim_tables(result: ClaimsResult) -> list[RenderableType]:
    """A line a number that a claim rests on or has beside it, then each verdict in words."""
    table = plain_table(
        "Claims, on report requests; numbers that decide are bold",
        *("", "measured", "verdict", "value", "95% interval", "bar", "requests", "cases"),
        left=3,
    )
    for claim in result.records:
        table.add_row(claim.key, prose(claim.text), claim.verdict, *[""] * 5, style="bold")
        for found in claim.evidence:
            verdict = found.verdict if found.decides else ""
            table.add_row("", f"  {found.name}", verdict, *_numbers(found), style="bold" if found.decides else None)
        table.add_section()
    words = [prose(f"{claim.key} {claim.verdict}: {claim.said}{_reasons(claim.evidence)}") for claim in result.records]
    return [table, *words, *map(prose, result.notes), Text(result.verdict, style="bold")]


def _numbers(found: ClaimEvidence) -> tuple[str, str, str, str, str]:
    if found.value is None:
        return ABSENT, ABSENT, "", "", ""
    bounds = ABSENT
    if found.low is not None and found.high is not None:
        bounds = f"{_one(found, found.low)} to {_one(found, found.high)}"
    bar = _one(found, found.bar) if found.bar else ""
    return _one(found, found.value), bounds, bar, str(found.requests or ABSENT), str(len(found.by_case) or 1)


def _one(found: ClaimEvidence, value: float) -> str:
    if found.unit == "points":
        return signed(100 * value, 0)
    return number(round(value, 2) + 0.0)  # no "-0.00"


def _reasons(evidence: list[ClaimEvidence]) -> str:
    """Why nothing can be told, of the numbers that decide."""
    reasons = [f"{each.name}: {each.reason}" for each in evidence if each.decides and each.reason]
    return f" ({'; '.join(reasons)}.)" if reasons else ""
