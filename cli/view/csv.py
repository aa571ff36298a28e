"""Diff's long table, for spreadsheets and data frames: one line per tensor, one column per number.

A number inside of another has a dotted name ("between.cosine_null.mean"). Lists (heads, experts, singular values) and
reasons are JSON in one cell each, so that `frame["vl.heads"].map(json.loads).explode()` gives a line per head.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.results import DiffResult
from vlsurgery.surgery.runtime.atomic_file import write_text


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
            **dict(_columns("", pair.metrics.model_dump())),
        }
        for pair in result.pairs
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _columns(prefix: str, metrics: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in metrics.items():
        if isinstance(value, Mapping) and key != "why":
            yield from _columns(f"{prefix}{key}.", value)
        elif value is not None or prefix:
            yield f"{prefix}{key}", json.dumps(value) if isinstance(value, list | Mapping) else value


def write_csv(path: Path, result: DiffResult) -> None:
    """Write the long table atomically. Raises TargetError where that can't be done."""
    try:
        write_text(path, long_table(result))
    except OSError as error:
        raise TargetError(f"{path}: can't write the table ({error.strerror}). Name another file with --csv.") from error
