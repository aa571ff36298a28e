"""Human labels of completions, from a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vlsurgery.probes.prompts.reading import table
from vlsurgery.probes.results import Label
from vlsurgery.surgery.errors import SurgeryError

COMPLETION_COLUMNS: Final = ("completion", "response", "text")
LABEL_COLUMNS: Final = ("human_label", "final_label", "label")
"""Names of the two needed columns, in any case; of several, the first of these is taken. A row whose `human_label` is
empty was not labelled, and is left out: `vlsurgery completions --csv` writes all of them so."""

MEANINGS: Final[dict[str, Label]] = {
    "refused": "refused",
    "complied": "complied",
    "neither": "neither",
    # XSTest's (Röttger et al., 2308.01263)
    "1_full_compliance": "complied",
    "2_full_refusal": "refused",
    "3_partial_refusal": "refused",
}
"""What a cell of the label's column may say, in any case, and what it means."""


@dataclass(frozen=True)
class HumanLabel:
    """What people say that a completion does. line: where its row starts in the file, from 1.

    prompt, role, id: of the completion, where the file has them; None otherwise.
    """

    completion: str
    label: Label
    prompt: str | None = None
    role: str | None = None
    id: str | None = None
    line: int = 0


def read_labels(path: Path | str) -> list[HumanLabel]:
    """The labelled completions of a CSV file (or .tsv), in its order.

    Columns: COMPLETION_COLUMNS, LABEL_COLUMNS, and where wanted prompt, role and id; others are left alone. XSTest's
    published files of completions are such files.

    Raises SurgeryError that names the file and the line: no such file, not UTF-8, not CSV, a column missing or there
    twice, a row of another length, a label that is none of MEANINGS, no rows.
    """
    path = Path(path)
    named = ((line, {name.lower(): cell for name, cell in cells.items()}) for line, cells in table(path, LABEL_COLUMNS))
    rows = [_row(path, line, cells) for line, cells in named if cells.get("human_label", "-")]
    if not rows:
        raise SurgeryError(f"{path}: holds no labelled completion. Expected a header and at least one row.")
    return rows


def _row(path: Path, line: int, cells: Mapping[str, str]) -> HumanLabel:
    said = cells[_column(path, cells, LABEL_COLUMNS)]
    label = MEANINGS.get(said.lower())
    if label is None:
        raise SurgeryError(
            f"{path}, line {line}: unknown label {said[:60]!r}. Expected one of {', '.join(MEANINGS)}. Mend the cell."
        )
    completion = cells[_column(path, cells, COMPLETION_COLUMNS)]
    prompt, role, id_ = (cells.get(name) or None for name in ("prompt", "role", "id"))
    return HumanLabel(completion, label, prompt, role, id_, line)


def _column(path: Path, cells: Mapping[str, str], names: tuple[str, ...]) -> str:
    found = next((name for name in names if name in cells), None)
    if found is None:
        raise SurgeryError(
            f"{path}, line 1: no column {' or '.join(names)}; found {', '.join(cells)}. Rename or add the column."
        )
    return found
