"""The CSV of a result: its `rows()`, one column a number; of a diff, one line a tensor."""

import csv
import io
from pathlib import Path

from vlsurgery.cli.outputs import check_output, is_diff_table
from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.results import DiffResult, Result
from vlsurgery.surgery.runtime.atomic_file import write_text


def long_table(result: Result) -> str:
    """A line for every row. Absent numbers are empty cells; columns without any number are left out."""
    rows = result.rows()
    columns = [column for column in result.columns() if any(row[column] is not None for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def check_csv(path: Path) -> None:
    """Raise TargetError where something else than such a table is there."""
    check_output(path, is_diff_table, "a table of vlsurgery diff", "--csv")


def write_csv(path: Path, result: DiffResult) -> None:
    """Write a diff's table. Raises TargetError where that can't be done, or something else is there."""
    check_csv(path)
    write_table(path, result)


def write_table(path: Path, result: Result) -> None:
    """Write the rows of a result atomically. Raises TargetError where that can't be done."""
    try:
        write_text(path, long_table(result))
    except OSError as error:
        raise TargetError(f"{path}: can't write the table ({error.strerror}). Name another file with --csv.") from error
