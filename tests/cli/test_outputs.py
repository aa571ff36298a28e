"""Files that the user names are written only where nothing of the user's is lost."""

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from vlsurgery.cli.outputs import (
    HUMAN_LABEL,
    check_output,
    is_completion_file,
    is_completions_table,
    is_diff_table,
    is_inspect_log,
    is_mergekit_export,
    is_report,
)
from vlsurgery.probes.results import CompletionsResult
from vlsurgery.surgery.errors import TargetError
from vlsurgery.surgery.mergekit.writing import HEAD

KINDS = [is_report, is_diff_table, is_completions_table, is_mergekit_export, is_inspect_log, is_completion_file]
RECORD = {
    "role": "base",
    "id": "1",
    "request": "1",
    "set": "harmful",
    "modality": "text",
    "prompt": "p",
    "text": "t",
    "tokens": 1,
    "cut": False,
    "verdicts": {},
    "prompts_digest": "",
}
OTHERS = {
    "weights": b"\x10\0\0\0\0\0\0\0{}              ",
    "config": b'{"model_type": "llama"}',
    "thesis": "<!DOCTYPE html><title>My thesis on vlsurgery: </title>".encode("utf-16"),
    "page": b"<!DOCTYPE html><title>thesis</title>",
    "table": b"name,value\n1,2\n",
    "lines": b'{"prompt": "mine"}\n',
    "unfinished line": b"dear diary",
    "our recipe": b"schema: vlsurgery/recipe/1\n",
    "noise": bytes(range(256)) * 9,
}


def check(path: Path, is_ours: Callable[[Path], bool]) -> None:
    check_output(path, is_ours, "one of ours", "--here")


def filled(folder: Path, label: str) -> Path:
    path = folder / "said.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*CompletionsResult.columns(), HUMAN_LABEL], restval="")
        writer.writeheader()
        writer.writerow({"text": "two\nlines", HUMAN_LABEL: label})
    return path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("other", OTHERS)
def test_a_file_of_the_users_is_refused(tmp_path: Path, kind: Callable[[Path], bool], other: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(OTHERS[other])
    with pytest.raises(TargetError, match=r"file: exists and is not one of ours\. Name another file with --here"):
        check(path, kind)


def test_what_the_same_command_wrote_is_replaced(tmp_path: Path) -> None:
    own = {
        is_report: b'<!DOCTYPE html>\n<html lang="en">\n<head><title>vlsurgery: lost</title>',
        is_diff_table: b"tower,layer,component,vl.relative\ntext,0,q,.5\n",
        is_mergekit_export: HEAD.encode(),
        is_inspect_log: b'{"version": 2, "eval": {"task": "vlsurgery/refusals"}}',
        is_completion_file: json.dumps(RECORD).encode() + b"\n",
    }
    for kind, content in own.items():
        path = tmp_path / kind.__name__
        check(path, kind)
        path.write_bytes(content)
        check(path, kind)
    with zipfile.ZipFile(tmp_path / "log.eval", "w") as archive:
        archive.writestr("header.json", own[is_inspect_log])
    check(tmp_path / "log.eval", is_inspect_log)


def test_labels_that_people_wrote_are_never_lost(tmp_path: Path) -> None:
    check(filled(tmp_path, ""), is_completions_table)
    with pytest.raises(TargetError, match="exists and is not"):
        check(filled(tmp_path, "refused"), is_completions_table)


@pytest.mark.parametrize("inside", ["report.html", "model.safetensors", "deep/report.html"])
@pytest.mark.parametrize("config", ["config.json", "adapter_config.json"])
def test_nothing_is_written_into_a_checkpoint(tmp_path: Path, inside: str, config: str) -> None:
    folder = tmp_path / "llava"
    (folder / "deep").mkdir(parents=True)
    (folder / config).write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "link").symlink_to(folder)
    for place in ("llava", "link"):
        with pytest.raises(TargetError, match="lies in the checkpoint"):
            check(tmp_path / place / inside, is_report)


def test_links_and_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "victim")
    with pytest.raises(TargetError, match="is a link"):
        check(tmp_path / "link", is_report)
    with pytest.raises(TargetError, match="no regular file"):
        check(tmp_path, is_report)
    with pytest.raises(TargetError, match="no regular file"):
        check(Path("/dev/null"), is_report)
