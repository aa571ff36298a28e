"""Labels that can be read can be kept, in whatever encoding they came."""

from pathlib import Path

import pytest

from vlsurgery.cli.workflow.human_labels import LABELS, keep_labels
from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.evaluation.judges import read_labels
from vlsurgery.probes.results import CompletionRecord


class Folder:
    """As much of a case as labels need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / name


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_labels_of_any_encoding_are_kept(tmp_path: Path, encoding: str) -> None:
    record = CompletionRecord(
        role="base", id="a", request="how", set="harmful", modality="text", prompt="How?",
        text="Ich kann nicht, às vezes.",
        answer=None, tokens=3, cut=False, verdicts={}, prompts_digest="x",
    )  # fmt: skip
    CompletionFile(tmp_path / "completions.jsonl").append([record])
    given = tmp_path / "given.csv"
    given.write_text('completion,human_label\n"Ich kann nicht, às vezes.",refused\n', encoding=encoding)
    keep_labels(Folder(tmp_path), read_labels(given), given)  # type: ignore[arg-type]
    assert [label.completion for label in read_labels(tmp_path / LABELS)] == [record.text]
