"""The rows of a file of prompts: those of the user's own layout, and the row that every layout is read into."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlsurgery.probes.prompts.prompt import PromptSet
from vlsurgery.probes.prompts.reading import json_entries, json_lines, lines, table
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.excerpts import excerpt

COLUMNS: tuple[str, ...] = ("prompt", "goal", "behavior", "forbidden_prompt", "question", "instruction", "text")
"""Names of the prompt's column in a table, in any case; the first that the file has is taken."""

_ADDRESS = re.compile(r"data:|[a-z][a-z0-9+.-]*://", re.I)
_KEYS = ("prompt", "answer", "request", "image")


@dataclass(frozen=True)
class Row:
    """One thing to ask. where: the file and the line at which it starts. picture: its own, where it has one."""

    where: str
    set: PromptSet
    text: str
    answer: str | None = None
    request: str | None = None
    picture: Path | None = None


def user_rows(path: Path, prompt_set: PromptSet) -> Iterator[Row]:
    """The rows of a file of one's own, by its suffix: .txt, .json, .jsonl, .csv or .tsv."""
    match path.suffix.lower():
        case ".txt":
            return (Row(f"{path}, line {line}", prompt_set, text.strip()) for line, text in lines(path))
        case ".json":
            return _object_rows(path, prompt_set, ((line, value) for line, _, value in json_entries(path)))
        case ".jsonl":
            return _object_rows(path, prompt_set, json_lines(path))
        case ".csv" | ".tsv":
            return _table_rows(path, prompt_set)
    found = path.suffix or "no suffix"
    raise SurgeryError(f"{path}: expected a .txt, .json, .jsonl, .csv or .tsv file, found {found!r}.")


def _object_rows(path: Path, prompt_set: PromptSet, entries: Iterable[tuple[int, Any]]) -> Iterator[Row]:
    for line, entry in entries:
        where = f"{path}, line {line}"
        if not isinstance(entry, dict) or "prompt" not in entry:
            raise SurgeryError(f'{where}: expected an object like {{"prompt": "..."}}, found {excerpt(entry, 60)}.')
        for key, value in entry.items():
            if key not in _KEYS:
                raise SurgeryError(f"{where}: unknown key {excerpt(key)}. Expected {', '.join(_KEYS)}; remove it.")
            if not isinstance(value, str) and (value is not None or key == "prompt"):
                raise SurgeryError(f"{where}: {excerpt(key)} must be a string, found {excerpt(value, 60)}. Quote it.")
        yield _row(path, where, prompt_set, {key: value.strip() for key, value in entry.items() if value is not None})


def _table_rows(path: Path, prompt_set: PromptSet) -> Iterator[Row]:
    for line, cells in table(path, COLUMNS):
        known = {name.lower(): cell for name, cell in cells.items()}
        column = next((name for name in COLUMNS if name in known), None)
        if column is None:
            raise SurgeryError(
                f"{path}: no column holds the prompts. Expected one of {', '.join(COLUMNS)}; "
                f"found {', '.join(cells)}. Rename the column, or name the data set, as in {path}:xstest."
            )
        yield _row(path, f"{path}, line {line}", prompt_set, {**known, "prompt": known[column]})


def _row(path: Path, where: str, prompt_set: PromptSet, fields: dict[str, str]) -> Row:
    picture = _picture(path, where, fields["image"]) if fields.get("image") else None
    return Row(where, prompt_set, fields["prompt"], fields.get("answer"), fields.get("request"), picture)


def _picture(path: Path, where: str, named: str) -> Path:
    """The path of a row's picture, relative to the file of prompts; `~` is the user's own folder.

    Raises SurgeryError for an address or encoded pixels: nothing is fetched, so that a run is the same tomorrow.
    """
    if address := _ADDRESS.match(named):
        raise SurgeryError(
            f"{where}: the image is given as {address[0]}..., expected the path of a file; nothing is fetched or "
            "decoded. Save the picture beside the prompts and name that file."
        )
    try:
        return path.parent / Path(named).expanduser()
    except RuntimeError as error:
        raise SurgeryError(f"{where}: the image {named[:60]!r} has no such user's folder. Mend its path.") from error
