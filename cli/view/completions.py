"""Completions in the terminal and as a CSV. Control characters of models and prompts are shown, never obeyed."""

import csv
import io
import pydoc
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlsurgery.cli.console import Console
from vlsurgery.cli.outputs import HUMAN_LABEL, check_output, is_completions_table
from vlsurgery.probes.results import CompletionRecord, CompletionsResult
from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.runtime.atomic_file import write_text
from vlsurgery.surgery.runtime.visible import visible


def page_through(console: Console, records: Sequence[CompletionRecord]) -> None:
    """Show completions: by the pager of the terminal, or as plain text where there is none."""
    if console.json:
        return
    pages = _pages(records)
    if sys.stdout.isatty():
        pydoc.pager("".join(pages))
    else:
        sys.stdout.writelines(pages)


def _pages(records: Sequence[CompletionRecord]) -> Iterator[str]:
    if not records:
        yield "No completion meets these conditions.\n"
    last = None
    for number, record in enumerate(records, start=1):
        if (record.set, record.request, record.prompt) != last:
            last = (record.set, record.request, record.prompt)
            yield f"\n{'─' * 100}\n{visible(record.prompt)}\n"
        yield f"\n{_head(record)}  [{number} of {len(records)}]\n{_indented(record.text)}\n"


def _head(record: CompletionRecord) -> str:
    where = f"{record.role} · {record.set}, {record.modality} · {record.tokens} tokens{', cut' if record.cut else ''}"
    verdicts = "; ".join(
        f"{judge}: {verdict.label} ({verdict.kind}: {visible(verdict.reason)})"
        for judge, verdict in record.verdicts.items()
    )
    return f"{visible(where)} · {visible(verdicts) or 'not judged yet'}"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in visible(text).split("\n")) if text else "    (empty)"


def write_completions_csv(path: Path, result: CompletionsResult) -> None:
    """Write completions as a table, a line each, with an empty column for a human's label.

    Raises TargetError where the file can't be written, or is no such table, or has labels in it.
    """
    check_output(path, is_completions_table, "a table of vlsurgery completions without labels", "--csv")
    text = io.StringIO()
    columns = [*result.columns(), HUMAN_LABEL]
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(result.rows())
    try:
        write_text(path, text.getvalue())
    except OSError as error:
        raise TargetError(f"{path}: can't write the table ({error.strerror}). Name another file with --csv.") from error
