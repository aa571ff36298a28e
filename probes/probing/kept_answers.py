"""Models' own answers, kept in a file as they come, so that a probe that was cut short goes on from them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from vlsurgery.probes.evaluation.completion_store import asked_digest
from vlsurgery.probes.evaluation.generate import Completion
from vlsurgery.probes.models import Loader
from vlsurgery.probes.prompts import Prompt
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError, TargetError
from vlsurgery.surgery.runtime.json_lines import append_lines, whole_lines
from vlsurgery.surgery.runtime.regular_file import read_regular

MAX_BYTES: Final = 1 << 30  # of the file
MEMBERS: Final = {"model": str, "prompt": str, "text": str, "ids": list, "finished": bool}


def model_mark(checkpoint: Checkpoint, prompts: Sequence[Prompt], loader: Loader, tokens: int) -> str:
    """What identifies who answers, and what is asked: the model and how it runs, all prompts, and tokens at most."""
    how = [checkpoint.identity, asked_digest(prompts, loader.thinking), loader.dtype, loader.trust_remote_code, tokens]
    return hashlib.sha256(json.dumps(how).encode()).hexdigest()


class KeptAnswers:
    """The answers of a file by model and prompt; one that isn't there holds none. marks: role -> `model_mark`."""

    def __init__(self, path: Path, marks: dict[str, str]) -> None:
        self._path, self._marks = path, marks
        self._known: dict[tuple[str, str], Completion] = {}
        if path.exists():
            for number, line in enumerate(_lines(path), start=1):
                row = self._row(number, line)
                self._known[row["model"], row["prompt"]] = Completion(row["text"], tuple(row["ids"]), row["finished"])

    def of(self, role: str) -> dict[str, Completion]:
        """Prompt id -> what the model of a role answered."""
        mark = self._marks[role]
        return {prompt: said for (model, prompt), said in self._known.items() if model == mark}

    def add(self, role: str, prompts: Sequence[str], completions: Sequence[Completion]) -> None:
        """Keep answers, and have them on the disk on return. Raises TargetError where that can't be done."""
        rows = [
            {
                "model": self._marks[role],
                "prompt": prompt,
                "text": said.text,
                "ids": said.ids,
                "finished": said.finished,
            }
            for prompt, said in zip(prompts, completions, strict=True)
        ]
        try:
            append_lines(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        except OSError as error:
            raise TargetError(f"{self._path}: can't be written ({error.strerror}).") from error

    def _row(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if (
            not isinstance(row, dict)
            or row.keys() != MEMBERS.keys()
            or any(type(row[name]) is not kind for name, kind in MEMBERS.items())
            or any(type(token) is not int for token in row["ids"])
        ):
            raise SurgeryError(
                f"{self._path}, line {number}: no answer of a probe. Remove the file; models are asked again."
            )
        return row


def _lines(path: Path) -> list[bytes]:
    try:
        return [line for line in whole_lines(read_regular(path, MAX_BYTES)) if line.strip()]
    except OSError as error:
        raise SurgeryError(f"{path}: can't be read ({error.strerror}). Remove it; models are asked again.") from error
