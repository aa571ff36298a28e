"""Prompts as plain data, for tools that know nothing of this package, and the digest that tells two lists apart."""

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vlsurgery.probes.prompts.picture_files import rgb
from vlsurgery.probes.prompts.prompt import Picture, Prompt
from vlsurgery.surgery.errors import SurgeryError

T = TypeVar("T")


def prompts_as_records(prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """One dict a prompt, in order: id, request, set, split, modality, text, answer, picture.

    answer: the right answer, or None. picture: the pixels as the bytes of a PNG file, or None where the prompt has
    no picture; in RGB, as the models see it (`rgb`). Raises SurgeryError where the file of a picture can't be read.
    """
    drawn = _once_each(prompts, _png)
    return [
        {
            "id": prompt.id,
            "request": prompt.request,
            "set": prompt.set,
            "split": prompt.split,
            "modality": prompt.modality,
            "text": prompt.text,
            "answer": prompt.answer,
            "picture": drawn[id(prompt.image)],
        }
        for prompt in prompts
    ]


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """What identifies a list of prompts: SHA-256, as 64 hexadecimal digits.

    Changes with any id, request, set, split, modality, text, answer or picture (the pixels of a drawn one, the bytes
    of a file), and not with the order of the prompts or the paths of pictures.
    """
    hashed = _once_each(prompts, _picture_digest)
    rows = [[p.id, p.request, p.set, p.split, p.modality, p.text, p.answer, hashed[id(p.image)]] for p in prompts]
    return hashlib.sha256("\n".join(sorted(map(json.dumps, rows))).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes. Raises SurgeryError where it can't be read, or is no regular file."""
    check_regular(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SurgeryError(f"{path}: can't be read ({error.strerror}). Put the file back, or mend the path.") from error


def check_regular(path: Path) -> None:
    """Raise SurgeryError where a path is there and no regular file: a pipe is waited for, a device has no end."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise SurgeryError(f"{path}: is {kind}, expected a regular file. Give the path of a file.")


def _once_each(prompts: Sequence[Prompt], work: Callable[[Picture], T]) -> dict[int, T | None]:
    """What `work` makes of each picture, by the identity of the object: many prompts share a few pictures."""
    pictures = {id(prompt.image): prompt.image for prompt in prompts}
    return {key: None if picture is None else work(picture) for key, picture in pictures.items()}


def _picture_digest(picture: Picture) -> str:
    if isinstance(picture, Path):
        return file_digest(picture)
    header = f"{picture.mode} {picture.size}\n".encode()
    return hashlib.sha256(header + picture.tobytes()).hexdigest()


def _png(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    rgb(picture).save(buffer, "PNG")
    return buffer.getvalue()
