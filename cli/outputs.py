"""Files that the user asks for by name: what is there already is replaced only where the same command wrote it."""

import csv
import io
import os
import re
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from vlsurgery.surgery.errors import TargetError

# Bytes of a file by which it is known.
HEAD_BYTES: Final = 1 << 16
WEIGHTS: Final = (".safetensors", ".bin", ".gguf")
CONFIGS: Final = ("config.json", "adapter_config.json")
# The column of a table of completions that is empty until people fill it in.
HUMAN_LABEL: Final = "human_label"

IsOurs = Callable[[Path], bool]


def check_output(path: Path, is_ours: IsOurs, what: str, option: str) -> None:
    """Raise TargetError where a file must not be written: a link, a file that the command did not write, or a place
    inside of a checkpoint.

    is_ours: whether a file is one that the command writes. what: such a file, in words. option: names it.
    """
    other = f"Name another file with {option}."
    if path.is_symlink():
        raise TargetError(f"{path}: is a link, and links are not written through. {other}")
    for folder in Path(os.path.realpath(path)).parents:
        if _holds_checkpoint(folder):
            raise TargetError(f"{path}: lies in the checkpoint {folder}, into which nothing is written. {other}")
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise TargetError(f"{path}: exists and is no regular file. {other}")
    try:
        ours = not path.stat().st_size or is_ours(path)
    except OSError as error:
        raise TargetError(f"{path}: can't be read ({error.strerror or error}). {other}") from error
    if not ours:
        raise TargetError(f"{path}: exists and is not {what}. {other[:-1]}, or move this one away.")


def is_report(path: Path) -> bool:
    """Whether a file is a page that `vlsurgery report` wrote."""
    head = _head(path)
    return head.lstrip().startswith("<!DOCTYPE html>") and "<title>vlsurgery: " in head


def is_claims_file(path: Path) -> bool:
    """Whether a file is a page or a result that `vlsurgery claims` wrote."""
    head = _head(path).lstrip()
    if head.startswith("<!DOCTYPE html>"):
        return "<title>vlsurgery: claims</title>" in head
    return re.match(r'\{\s*"schema":\s*"vlsurgery/claims/', head) is not None


def is_diff_table(path: Path) -> bool:
    """Whether a file is a table of `vlsurgery diff --csv`: its columns are those of a diff."""
    from vlsurgery.surgery.results import DiffResult

    columns = next(csv.reader(io.StringIO(_head(path))), [])
    return {"tower", "component"} <= set(columns) <= set(DiffResult.columns())


def is_trajectory_table(path: Path) -> bool:
    """Whether a file is a table of `vlsurgery trajectory --csv`: its columns are those of a trajectory."""
    from vlsurgery.probes.trajectory_results import TrajectoryResult

    columns = next(csv.reader(io.StringIO(_head(path))), [])
    return {"step", "set", "log_odds.value"} <= set(columns) <= set(TrajectoryResult.columns())


def is_trajectory_page(path: Path) -> bool:
    """Whether a file is a page that `vlsurgery trajectory -o` wrote."""
    head = _head(path)
    return head.lstrip().startswith("<!DOCTYPE html>") and "<title>vlsurgery trajectory" in head


def is_kept_trajectory(path: Path) -> bool:
    """Whether a file is what `vlsurgery trajectory --keep` wrote; its first line may have been cut off."""
    return _head(path).startswith('{"schema": "vlsurgery/trajectory-kept/')


def is_completions_table(path: Path) -> bool:
    """Whether a file is a table of `vlsurgery completions --csv` into which nobody has written a label yet."""
    from vlsurgery.probes.results import CompletionsResult

    rows = csv.reader(_lines(path))
    columns = next(rows, [])
    if set(columns) != {*CompletionsResult.columns(), HUMAN_LABEL}:
        return False
    label = columns.index(HUMAN_LABEL)
    return not any(row[label].strip() for row in rows if len(row) > label)


def is_mergekit_export(path: Path) -> bool:
    """Whether a file is what `vlsurgery merge --to-mergekit` wrote."""
    from vlsurgery.surgery.mergekit.writing import HEAD

    return _head(path).startswith(HEAD)


def is_inspect_log(path: Path) -> bool:
    """Whether a file is a log that `vlsurgery evaluate --inspect-log` wrote, by the task in it."""
    from vlsurgery.probes.harnesses.inspect_writer import TASK

    text = _zipped_header(path) if zipfile.is_zipfile(path) else _head(path)
    return re.search(rf'"task":\s*"{re.escape(TASK)}"', text) is not None


def is_completion_file(path: Path) -> bool:
    """Whether a file holds completions of `vlsurgery evaluate`, by its first line; it may have been cut off there."""
    from pydantic import ValidationError

    from vlsurgery.probes.results import CompletionRecord

    with path.open("rb") as file:
        line = file.readline(1 << 24)
    if not line.endswith(b"\n"):
        return line.startswith(b'{"role": "')
    try:
        CompletionRecord.model_validate_json(line)
    except ValidationError:
        return False
    return True


def _holds_checkpoint(folder: Path) -> bool:
    """Whether a directory has a config and weights, as a checkpoint or an adapter."""
    if not any((folder / name).is_file() for name in CONFIGS):
        return False
    return any(name.endswith(WEIGHTS) for name in os.listdir(folder))


def _head(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(HEAD_BYTES).decode("utf-8", "replace")


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        yield from file


def _zipped_header(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name in ("header.json", "_journal/start.json")]
            return "".join(archive.open(name).read(HEAD_BYTES).decode("utf-8", "replace") for name in names)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError):  # damaged, or packed in a way that we never use
        return ""
