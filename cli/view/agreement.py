"""Judges against people's labels, in the terminal."""

from rich.console import RenderableType

from vlsurgery.cli.view.tables import number, percent, plain_table, prose
from vlsurgery.probes.evaluation.judges.agreement import AgreementResult

MEASURES = ("accuracy", "precision", "recall", "specificity")


def agreement_tables(result: AgreementResult) -> list[RenderableType]:
    """How often each judge is right, and the refusal rate as it measures it and corrected for its errors."""
    heads = ("judge", *MEASURES, "refused", "corrected")
    table = plain_table(f"Judges against {result.labels}: % and 95% interval", *heads)
    for row in result.records:
        rates = (*(getattr(row, measure) for measure in MEASURES), row.refused, row.corrected)
        table.add_row(row.judge, *map(percent, rates))
    said: list[RenderableType] = [table]
    for each in result.agreement:
        one, other = each.judges
        said.append(
            prose(
                f"{one} and {other} agree on {each.agreement:.1%} of {each.n} completions (Cohen's kappa "
                f"{number(each.kappa, 2)}); they differ on {len(each.differing)}."
            )
        )
    return said
