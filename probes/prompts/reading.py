"""Text files as lines, tables and JSON entries, each with the line at which it starts.

A line ends with LF, CR or CRLF and with nothing else: a form feed or U+2028 is part of a prompt. Every fault is a
SurgeryError that names the file, the line and what to do.
"""

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from vlsurgery.probes.prompts.records import check_regular
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.bounded_json import check_depth
from vlsurgery.surgery.runtime.excerpts import excerpt
from vlsurgery.surgery.runtime.regular_file import read_regular

DELIMITERS: dict[str, str] = {".csv": ",;\t", ".tsv": "\t"}
"""The characters that may separate the cells of a table, the likeliest first, by the suffix of the file."""

# The marks at the start of a file by which its encoding is known. UTF-32's little-endian mark starts with UTF-16's.
_MARKS: tuple[tuple[bytes, str], ...] = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MAX_BYTES = 1 << 30  # of a file of prompts or labels
_GZIP = b"\x1f\x8b"
_LINE_END = re.compile(r"\r\n|\r|\n")
_BETWEEN = re.compile(r"[\s,:]*")  # what may stand between two parts of a valid list or object


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark; the mark is no part of it."""
    check_regular(path)
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as error:
        raise SurgeryError(f"{path}: can't be read ({error.strerror}). Give the path of a file of prompts.") from error
    if content.startswith(_GZIP):
        raise SurgeryError(f"{path}: is compressed by gzip, expected text. Unpack it: gunzip -c {path.name} > FILE")
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding, errors="replace")
        name = encoding.removesuffix("-sig").upper()
        raise SurgeryError(
            f"{path}, line {_line(before, len(before))}: not {name} text (byte {error.start + 1} of the file is "
            f"0x{content[error.start]:02x}). Save the file as UTF-8, for example with: "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
        ) from error
    if "\0" in text:
        raise SurgeryError(
            f"{path}, line {_line(text, text.index(chr(0)))}: holds a NUL byte, so this is no UTF-8 text; it may be "
            f"UTF-16 without a byte order mark. Convert it: iconv -f UTF-16LE -t UTF-8 {path.name} > utf8-{path.name}"
        )
    return text


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file that hold more than white space: number, from 1, and text."""
    numbered = enumerate(_LINE_END.split(read_text(path)), start=1)
    return ((number, text) for number, text in numbered if text.strip())


def table(path: Path, columns: Collection[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table with a header: each row's first line, and its stripped cells by column.

    columns: names of which the header should have one, in any case; the delimiter of a .csv file is the first of
    DELIMITERS under which it has. Cells may hold line ends in double quotes.
    """
    reader = _table_reader(path, columns)
    try:
        header = _header(path, reader)
        start = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                raise SurgeryError(
                    f"{path}, line {start}: {len(cells)} cells where the header has {len(header)}. "
                    "Put a cell that holds delimiters or quotes into double quotes."
                )
            if cells:
                yield start, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
            start = reader.line_num + 1
    except csv.Error as error:
        raise SurgeryError(f"{path}, line {max(reader.line_num, 1)}: not CSV ({error}). Mend the line.") from error


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The values of a file with a JSON value a line, each with its line."""
    for number, line in lines(path):
        yield number, _parsed(line, path, number)


def json_entries(path: Path) -> Iterator[tuple[int, str, Any]]:
    """The entries of a JSON list or object: the line at which each starts, its key (its place in a list, from 0), and
    its value."""
    if path.suffix.lower() != ".json":
        raise SurgeryError(f"{path}: expected a .json file, found {path.suffix or 'no suffix'!r}.")
    text = read_text(path)
    if not text.strip():
        return
    whole = _parsed(text, path)
    if not isinstance(whole, (list, dict)):
        raise SurgeryError(f"{path}: expected a JSON list or object of prompts, found {text.strip()[:60]!r}.")
    decoder, line, counted = json.JSONDecoder(), 1, 0
    at = len(text) - len(text.lstrip()) + 1
    named = whole.items() if isinstance(whole, dict) else ((str(place), value) for place, value in enumerate(whole))
    for key, value in named:
        at = _between(text, at)
        line, counted = line + text.count("\n", counted, at), at
        if isinstance(whole, dict):
            at = _between(text, decoder.raw_decode(text, at)[1])
        yield line, key, value
        at = decoder.raw_decode(text, at)[1]


def _between(text: str, at: int) -> int:
    match = _BETWEEN.match(text, at)
    return match.end() if match else at


def _parsed(text: str, path: Path, line: int | None = None) -> Any:
    """The value of JSON text. line: of the file at which the text stands; None for a whole file."""
    try:
        value = json.loads(text, object_pairs_hook=_object)
        check_depth(value)
    except (ValueError, RecursionError) as error:
        at = line or getattr(error, "lineno", None)
        where = f"{path}, line {at}" if at else str(path)
        advice = "Mend it." if line is None else "Write one object a line."
        raise SurgeryError(f"{where}: not JSON ({str(error)[:200]}). {advice}") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"an object has the key {excerpt(twice)} twice")
    return made


def _table_reader(path: Path, columns: Collection[str]) -> Any:
    """A csv reader of the file, with the delimiter under which the header has one of the columns."""
    delimiters = DELIMITERS.get(path.suffix.lower())
    if delimiters is None:
        raise SurgeryError(f"{path}: expected a .csv or .tsv file, found {path.suffix or 'no suffix'!r}.")
    text, wanted = read_text(path), {name.lower() for name in columns}
    first = _LINE_END.split(text, maxsplit=1)[0].lower()
    fitting = (each for each in delimiters if wanted & {name.strip(' "') for name in first.split(each)})
    delimiter = next(fitting, delimiters[0])
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _header(path: Path, reader: Any) -> list[str]:
    header = [name.strip() for name in next(reader, [])]
    known = [name.lower() for name in header if name]
    twice = sorted({name for name in known if known.count(name) > 1})
    if twice:
        raise SurgeryError(f"{path}, line 1: the column {twice[0]!r} stands twice. Rename or remove one.")
    return header


def _line(text: str, at: int) -> int:
    """The line, from 1, on which a character of the text stands."""
    return len(_LINE_END.findall(text, 0, at)) + 1
