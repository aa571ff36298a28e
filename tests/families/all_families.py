"""All families of the table, and the README's sentence on them."""

from families import further, table, texts  # noqa: F401  they enter their families
from families.entries import FAMILIES

__all__ = ["FAMILIES", "listed"]


def listed() -> str:
    """The README's sentence on the families that run."""

    def names(extra: bool, sees: bool = True) -> str:
        found = (n for n, each in FAMILIES.items() if (bool(each.needs), each.sees, each.limit) == (extra, sees, ""))
        return ", ".join(found)

    limits = ", ".join(f"{name} ({entry.limit})" for name, entry in FAMILIES.items() if entry.limit)
    return (
        f"Families that run, by the checks of tests/benchmarks/running.py on tiny models of each: {names(False)}; with "
        f"`pip install 'vlsurgery[vision]'`: {names(True)}. In part: {limits}. In text alone: "
        f"{names(False, sees=False)}."
    )
