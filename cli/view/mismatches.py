"""Where checkpoints differ in settings and tokens, as a table."""

from collections.abc import Sequence

from rich.console import RenderableType

from vlsurgery.cli.view.tables import ABSENT, plain_table, prose
from vlsurgery.surgery.results import Mismatch


def mismatch_tables(mismatches: Sequence[Mismatch], roles: Sequence[str]) -> list[RenderableType]:
    """One line a mismatch with the value in each role, and below the table what each means; nothing where all agree.

    A dash stands where a role says nothing.
    """
    if not mismatches:
        return []
    table = plain_table("Settings and tokens that differ", "name", *roles, left=1 + len(roles))
    for each in mismatches:
        name = f"{each.name} (!)" if each.serious else each.name
        table.add_row(name, *(each.values.get(role, ABSENT) for role in roles))
    told = dict.fromkeys(each.meaning for each in mismatches)
    named = {meaning: [each.name for each in mismatches if each.meaning == meaning] for meaning in told}
    return [table, *(prose(f"{', '.join(names)}: {meaning}") for meaning, names in named.items())]
