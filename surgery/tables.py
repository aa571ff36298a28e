"""Results as flat rows, data frames, and a few lines in a notebook. Light: narwhals is imported when a frame is made.

A number inside of another has a dotted column ("vl.relative", "between.cosine_null.mean"). Lists and mappings (heads,
singular values, reasons) are JSON in one cell each. Columns come from the result's types, not from its values: two
results of one kind have the same columns in the same order.
"""

import html
import json
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from types import UnionType
from typing import Any, ClassVar, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from vlsurgery.surgery.errors import SurgeryError

Backend = Literal["pandas", "polars"]
Row = dict[str, Any]

MAX_SHOWN_ROWS: Final = 12
MAX_SHOWN_COLUMNS: Final = 8
MAX_SHOWN_CHARACTERS: Final = 400


def flat(record: BaseModel | None, kind: type[BaseModel], prefix: str = "") -> Row:
    """One row: the fields of a record, those of records inside of it under dotted names; None where one is missing."""
    row: Row = {}
    for name, field in kind.model_fields.items():
        value = None if record is None else getattr(record, name)
        nested = _record_type(field.annotation)
        if nested is not None:
            row |= flat(value, nested, f"{prefix}{name}.")
        else:
            row[f"{prefix}{name}"] = _cell(value)
    return row


def _record_type(annotation: Any) -> type[BaseModel] | None:
    """The record that a field holds (or None); None for every other field."""
    options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    records = [each for each in options if isinstance(each, type) and issubclass(each, BaseModel)]
    return records[0] if len(records) == 1 and set(options) <= {records[0], type(None)} else None


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return json.dumps(value, ensure_ascii=False, default=lambda record: record.model_dump(mode="json", by_alias=True))


def frame(rows: list[Row], columns: list[str], backend: Backend | None = None) -> Any:
    """A pandas or polars data frame of rows. backend: None takes pandas, else polars, whichever is installed.

    Raises SurgeryError that says what to install.
    """
    found = backend or next((name for name in ("pandas", "polars") if find_spec(name)), None)
    if found is None or find_spec(found) is None:
        raise SurgeryError(f"a data frame takes {found or 'pandas or polars'}: pip install {found or 'pandas'}.")
    import narwhals

    data = {column: [row[column] for row in rows] for column in columns}
    return narwhals.from_dict(data, backend=found).to_native()


class Tabular(BaseModel):
    """What every result offers beside its fields: a short `repr`, an HTML table for notebooks, rows, and a frame.

    row_field: the field that holds the records of `rows()`. shown: the columns that a notebook shows; none named, the
        first ones.
    """

    row_field: ClassVar[str]
    shown: ClassVar[tuple[str, ...]] = ()

    def rows(self) -> list[Row]:
        """The result as flat rows, one a record; every row has the columns of `columns()`."""
        kind = self._row_type()
        return [flat(record, kind) for record in getattr(self, self.row_field)]

    @classmethod
    def columns(cls) -> list[str]:
        """The columns of `rows()` in their order: the same for every result of this class."""
        return list(flat(None, cls._row_type()))

    @classmethod
    def _row_type(cls) -> type[BaseModel]:
        (kind,) = get_args(cls.model_fields[cls.row_field].annotation)
        found: type[BaseModel] = kind
        return found

    def to_frame(self, backend: Backend | None = None) -> Any:
        """`rows()` as a data frame. backend: "pandas" or "polars"; by default whichever is installed, pandas first."""
        return frame(self.rows(), self.columns(), backend)

    def headline(self) -> str:
        """One line: which kind of result, of which roles, how many rows."""
        roles = ", ".join(getattr(self, "checkpoints", {}))
        count = len(getattr(self, self.row_field))
        return f"{type(self).__name__}({f'{roles}: ' if roles else ''}{count} {self.row_field.replace('_', ' ')})"

    def __repr__(self) -> str:
        verdict = " ".join(str(getattr(self, "verdict", "")).split())
        text = f"{self.headline()}\n{verdict}" if verdict else self.headline()
        return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[: MAX_SHOWN_CHARACTERS - 4]} ..."

    __str__ = __repr__

    def _repr_html_(self) -> str:
        """What a notebook shows: headline, verdict, and the first rows, of the columns that hold something."""
        rows = self.rows()
        held = [column for column in self.columns() if any(row[column] is not None for row in rows)]
        shown = [column for column in self.shown if column in held] or held[:MAX_SHOWN_COLUMNS]
        lines = [shown, *([row[column] for column in shown] for row in rows)]
        left = len(rows) - MAX_SHOWN_ROWS
        more = [f"{left} more rows"] if left > 0 else []
        more += [f"{len(held) - len(shown)} more columns"] if len(held) > len(shown) else []
        rest = f"<p>and {', '.join(more)}: <code>.to_frame()</code></p>" if more else ""
        table = "".join(_html_line(line, "td" if at else "th") for at, line in enumerate(lines[: MAX_SHOWN_ROWS + 1]))
        return f"<pre>{html.escape(repr(self))}</pre><table>{table}</table>{rest}"


def _html_line(cells: Iterable[Any], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(text)}</{tag}>' for text in _texts(cells))}</tr>"


def _texts(cells: Iterable[Any]) -> Iterator[str]:
    for cell in cells:
        text = "" if cell is None else f"{cell:.4g}" if isinstance(cell, float) else str(cell)
        yield text if len(text) <= 60 else f"{text[:57]}..."


def spread(row: Row, column: str, keys: Iterable[str]) -> Row:
    """A row in which a mapping has a column for each of its known keys in place of one JSON cell."""
    mapping = json.loads(row[column] or "{}")
    found: Row = {}
    for name, cell in row.items():
        found |= {f"{column}.{key}": mapping.get(key) for key in keys} if name == column else {name: cell}
    return found
