"""Diff's long table: one line per tensor, for spreadsheets and data frames."""

import csv
import io
from pathlib import Path

from surgery.errors import TargetError
from surgery.results import DiffResult, write_text


def long_table(result: DiffResult) -> str:
    """CSV of every pair: where it is, and every metric that was measured. What could not be had is empty."""
    rows = [
        {
            "tower": pair.tower,
            "layer": pair.layer,
            "component": pair.component,
            "block": pair.block,
            "name": str(pair.names.get("adapted", "")),
            "shape": "x".join(map(str, pair.shape)),
            "dtype": pair.dtype,
            **{
                f"{group}.{metric}": value
                for group, metrics in pair.metrics.model_dump().items()
                for metric, value in (metrics or {}).items()
            },
        }
        for pair in result.pairs
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_csv(path: Path, result: DiffResult) -> None:
    """Write the long table atomically. Raises TargetError where that can't be done."""
    try:
        write_text(path, long_table(result))
    except OSError as error:
        raise TargetError(f"{path}: can't write the table ({error.strerror}). Name another file with --csv.") from error
