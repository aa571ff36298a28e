"""The files that leave the machine when a merge is pushed: what the merge wrote, checked, and nothing else."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vlsurgery.cli.shipping.private import PrivateWords, json_without_origins
from vlsurgery.surgery.checkpoint.headers import read_header
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.bounded_json import MAX_BYTES
from vlsurgery.surgery.runtime.progress import Progress, no_progress
from vlsurgery.surgery.runtime.regular_file import read_regular
from vlsurgery.surgery.writer.checksums import SUMS, listed_sums, sums_text, verify

CARD: Final = "README.md"
RECIPE: Final = "recipe.yaml"
WEIGHTS: Final = ".safetensors"
# Files of a tokenizer's vocabulary: any word may be in them, and nothing of ours.
VOCABULARIES: Final = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "tekken.json")


@dataclass(frozen=True)
class CheckedMerge:
    """A directory whose files are as a merge of ours wrote them. digests: name -> SHA-256 of each. left_out: files that
    the merge did not write, by name."""

    folder: Path
    digests: dict[str, str]
    left_out: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """The content of a small file, which has the digest that was checked. Raises CheckpointError."""
        path = self.folder / name
        try:
            content = read_regular(path, MAX_BYTES)
        except OSError as error:
            raise CheckpointError(f"{path}: can't be read ({error.strerror or error}).") from error
        if hashlib.sha256(content).hexdigest() != self.digests[name]:
            raise CheckpointError(f"{path}: changed while it was read. Leave {self.folder} alone and push again.")
        return content


@dataclass(frozen=True)
class Parcel:
    """What is sent: name -> the path of a file, or its content where that differs from the file's or is small.

    digests: name -> SHA-256 of what is sent. altered: name -> what was taken out of it.
    """

    files: dict[str, Path | bytes]
    digests: dict[str, str]
    altered: dict[str, str]

    @property
    def sizes(self) -> dict[str, int]:
        """Name -> bytes."""
        return {
            name: len(content) if isinstance(content, bytes) else content.stat().st_size
            for name, content in self.files.items()
        }


def checked_merge(folder: Path, progress: Progress = no_progress) -> CheckedMerge:
    """The merge in a directory, every file that it wrote compared with its SHA256SUMS.

    Raises CheckpointError for a directory that is no merge of ours, and where a file is gone or has other bytes.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such directory. Give the directory of a merge, such as case/merged.")
    digests = listed_sums(folder)
    absent = [name for name in (CARD, RECIPE, "config.json") if name not in digests]
    if absent:
        raise CheckpointError(
            f"{folder}: not a merge of ours: its {SUMS} lists no {', '.join(absent)}. Only merges of vlsurgery are "
            "pushed."
        )
    found = verify(folder, progress)
    if found.differ or found.missing:
        faults = {"other bytes than were written": found.differ, "missing": found.missing}
        words = "; ".join(f"{', '.join(names)} ({what})" for what, names in faults.items() if names)
        raise CheckpointError(
            f"{folder}: not as it was merged: {words}. Merge again (a card is edited on the Hub); nothing was sent."
        )
    return CheckedMerge(folder, digests, found.unlisted)


def packed(merge: CheckedMerge, card: str, recipe: str, private: PrivateWords) -> Parcel:
    """The parcel of a merge with a card and a recipe for others in place of its own.

    Raises CheckpointError where a file names a place of this machine or holds a token.
    """
    files: dict[str, Path | bytes] = {}
    altered = {}
    for name in sorted(merge.digests):
        if name.endswith(WEIGHTS):
            files[name] = merge.folder / name
            _check_metadata(merge.folder / name, private)
            continue
        content: bytes = {CARD: card, RECIPE: recipe}[name].encode() if name in (CARD, RECIPE) else merge.read(name)
        cleaned = json_without_origins(content) if name.endswith(".json") and name not in VOCABULARIES else None
        if cleaned is not None:
            altered[name] = "without the place that it was loaded from"
            content = cleaned
        if name not in VOCABULARIES:
            private.check(name, content.decode("utf-8", "replace"))
        files[name] = content
    digests = {name: _digest(content, merge.digests[name]) for name, content in files.items()}
    sums = sums_text(digests).encode("utf-8", "surrogateescape")
    return Parcel({**files, SUMS: sums}, digests | {SUMS: hashlib.sha256(sums).hexdigest()}, altered)


def _digest(content: Path | bytes, checked: str) -> str:
    return checked if isinstance(content, Path) else hashlib.sha256(content).hexdigest()


def _check_metadata(path: Path, private: PrivateWords) -> None:
    """What a weight file says of itself beside its tensors is copied from its parent."""
    metadata: Mapping[str, str] = read_header(path).metadata
    private.check(path.name, "\n".join(f"{key}: {value}" for key, value in metadata.items()))
