"""Prompts from files: the user's own lists, and published data sets in their authors' layout."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from vlsurgery.probes.prompts.prompt import SETS, Prompt, PromptSet
from vlsurgery.probes.prompts.splits import split_of
from vlsurgery.surgery.errors import SurgeryError

COLUMNS: tuple[str, ...] = ("prompt", "goal", "behavior", "forbidden_prompt", "question", "instruction", "text")
"""Names of the prompt's column in a CSV file, in any case; the first that the file has is taken."""

_KEYS = ("prompt", "answer", "request", "image")


@dataclass(frozen=True)
class _Format:
    """The layout of a published data set: the prompt's column, and the set of its rows.

    labels: a column and the set for each of its values, where rows differ. context: a column with text that the
    request refers to, put before the request.
    """

    column: str
    set: PromptSet
    labels: tuple[str, dict[str, PromptSet]] | None = None
    context: str | None = None


_DATA_SETS: dict[str, _Format] = {
    "advbench": _Format("goal", "harmful"),  # Zou et al., 2307.15043
    "harmbench": _Format("Behavior", "harmful", context="ContextString"),  # Mazeika et al., 2402.04249
    "strongreject": _Format("forbidden_prompt", "harmful"),  # Souly et al., 2402.10260
    "jailbreakbench": _Format("Goal", "harmful"),  # Chao et al., 2404.01318
    # Röttger et al., 2308.01263
    "xstest": _Format("prompt", "borderline", labels=("label", {"safe": "borderline", "unsafe": "harmful"})),
    "orbench": _Format("prompt", "borderline"),  # Cui et al., 2405.20947
}
KINDS: tuple[str, ...] = (*SETS, *_DATA_SETS)


def load_prompts(spec: str, seed: int = 0) -> list[Prompt]:
    """The prompts of one file, in its order. `spec` is FILE:KIND.

    KIND is a prompt set, for a file of one's own:
      .txt    a prompt a line; empty lines are skipped
      .jsonl  a line an object: "prompt", and where wanted "answer", "request", "image"
      .csv    a column of COLUMNS, and where wanted the columns answer, request, image
    or the name of a data set in its published CSV: advbench, harmbench, strongreject, jailbreakbench, xstest (its
    unsafe half is harmful, its safe half borderline), orbench (borderline; its toxic file is FILE:harmful).

    "request" joins prompts that ask the same thing (a twin, a jailbreak), across files too; without it a prompt is
    its own request. It may differ in case and spacing. "image" is relative to the file, and becomes the prompt's
    `own` picture. A `capability` prompt needs an "answer".

    Splits by `split_of`. Raises SurgeryError that names the file, the line, what was expected and what to do.
    """
    name, colon, kind = spec.rpartition(":")
    if not colon or not name:
        raise SurgeryError(f"{spec!r} is not FILE:KIND. KIND is one of {', '.join(KINDS)}.")
    if kind not in KINDS:
        raise SurgeryError(f"{spec}: unknown kind {kind!r}. Expected one of {', '.join(KINDS)}.")
    path = Path(name)
    rows = _published_rows(path, _DATA_SETS[kind]) if kind in _DATA_SETS else _user_rows(path, _set_of(kind))
    prompts = [row.prompt(path, seed) for row in rows]
    if not prompts:
        raise SurgeryError(f"{path}: holds no prompts. Put at least one into it.")
    return prompts


def without_repeats(own: Sequence[Prompt], given: Sequence[Prompt]) -> list[Prompt]:
    """The prompts of `own` whose requests are nowhere in `given`.

    The two are split by different rules, so a request in both could be in two splits. A request is left out with its
    twin and its wrapped forms when any of its prompts has the words of a given prompt or of a given prompt's request,
    apart from case, spacing and punctuation. Questions on `own` pictures are kept: their words don't identify them.
    """
    asked = {_words(text) for prompt in given for text in (prompt.text, prompt.request)}
    repeated = {
        prompt.request
        for prompt in own
        if prompt.modality != "own" and not asked.isdisjoint((_words(prompt.text), _words(prompt.request)))
    }
    return [prompt for prompt in own if prompt.request not in repeated]


def _words(text: str) -> str:
    """The words of a text, in lower case; the text itself where it has none."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold())) or text


@dataclass(frozen=True)
class _Row:
    """One row of a file. `line`: the line at which it starts, from 1."""

    line: int
    set: PromptSet
    text: str
    answer: str | None = None
    request: str | None = None
    image: str | None = None

    def prompt(self, path: Path, seed: int) -> Prompt:
        if not self.text:
            raise SurgeryError(f"{path}, line {self.line}: the prompt is empty. Fill it in or remove the line.")
        if self.set == "capability" and not self.answer:
            raise SurgeryError(
                f"{path}, line {self.line}: a capability prompt needs a right answer, found none. "
                "Give it an 'answer' (in a .jsonl or .csv file), or load the file as another kind."
            )
        request = " ".join((self.request or self.text).lower().split())
        return Prompt(
            id=f"{self.set}/{path}:{self.line}",
            request=request,
            set=self.set,
            text=self.text,
            split=split_of(request, seed),
            modality="own" if self.image else "text",
            image=_picture(path, self.line, self.image) if self.image else None,
            answer=self.answer or None,
        )


def _user_rows(path: Path, prompt_set: PromptSet) -> Iterator[_Row]:
    match path.suffix.lower():
        case ".txt":
            lines = enumerate(_read(path).splitlines(), start=1)
            return (_Row(line, prompt_set, text.strip()) for line, text in lines if text.strip())
        case ".jsonl":
            return _json_rows(path, prompt_set)
        case ".csv":
            return _csv_rows(path, prompt_set)
    raise SurgeryError(f"{path}: expected a .txt, .jsonl or .csv file, found {path.suffix or 'no suffix'!r}.")


def _json_rows(path: Path, prompt_set: PromptSet) -> Iterator[_Row]:
    for number, line in enumerate(_read(path).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise SurgeryError(f"{where}: not JSON ({error}). Write one object a line.") from error
        if not isinstance(entry, dict) or "prompt" not in entry:
            raise SurgeryError(f'{where}: expected an object like {{"prompt": "..."}}, found {line.strip()[:60]}')
        for key, value in entry.items():
            if key not in _KEYS:
                raise SurgeryError(f"{where}: unknown key {key!r}. Expected {', '.join(_KEYS)}; remove it.")
            if not isinstance(value, str):
                raise SurgeryError(f"{where}: {key!r} must be a string, found {json.dumps(value)[:60]}. Quote it.")
        fields = {key: value.strip() for key, value in entry.items()}
        yield _Row(number, prompt_set, fields.pop("prompt"), **fields)


def _csv_rows(path: Path, prompt_set: PromptSet) -> Iterator[_Row]:
    for number, cells in _table(path):
        known = {name.lower(): cell for name, cell in cells.items()}
        column = next((name for name in COLUMNS if name in known), None)
        if column is None:
            raise SurgeryError(
                f"{path}: no column holds the prompts. Expected one of {', '.join(COLUMNS)}; "
                f"found {', '.join(cells)}. Rename the column, or name the data set, as in {path}:xstest."
            )
        yield _Row(number, prompt_set, known[column], known.get("answer"), known.get("request"), known.get("image"))


def _published_rows(path: Path, form: _Format) -> Iterator[_Row]:
    label, sets = form.labels or (None, {})
    needed = [name for name in (form.column, label) if name]
    for number, cells in _table(path):
        for name in needed:
            if name not in cells:
                raise SurgeryError(
                    f"{path}: no column {name!r}; found {', '.join(cells)}. "
                    f"Use the data set's published CSV, or load the file as {path}:{form.set}."
                )
        if label and cells[label] not in sets:
            raise SurgeryError(
                f"{path}, line {number}: {label!r} is {cells[label]!r}, expected one of {', '.join(sets)}. Mend it."
            )
        context = cells.get(form.context, "") if form.context else ""
        text = f"{context}\n\n---\n\n{cells[form.column]}" if context else cells[form.column]
        yield _Row(number, sets[cells[label]] if label else form.set, text)


def _table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header: each row's first line, and its stripped cells by column."""
    if path.suffix.lower() != ".csv":
        raise SurgeryError(f"{path}: expected a .csv file, found {path.suffix or 'no suffix'!r}.")
    reader = csv.reader(io.StringIO(_read(path), newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        start = reader.line_num + 1
        for cells in reader:
            if cells and len(cells) != len(header):
                raise SurgeryError(
                    f"{path}, line {start}: {len(cells)} cells where the header has {len(header)}. "
                    "Put a cell that holds commas or quotes into double quotes."
                )
            if cells:
                yield start, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
            start = reader.line_num + 1
    except csv.Error as error:
        raise SurgeryError(f"{path}, line {reader.line_num}: not CSV ({error}). Mend the line.") from error


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SurgeryError(f"{path}: can't be read ({error.strerror}). Give the path of a file of prompts.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SurgeryError(f"{path}, line {line}: not UTF-8 text. Save the file as UTF-8.") from error


def _picture(path: Path, line: int, name: str) -> Path:
    image = path.parent / name
    try:
        # Reads the header only, so that a missing picture is found before a run starts.
        Image.open(image).close()
    except (OSError, UnidentifiedImageError) as error:
        reason = "not a picture" if isinstance(error, UnidentifiedImageError) else error.strerror
        raise SurgeryError(f"{path}, line {line}: can't open the image {image} ({reason}). Mend the path.") from error
    return image


def _set_of(kind: str) -> PromptSet:
    return next(name for name in SETS if name == kind)
