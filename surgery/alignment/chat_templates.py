"""The chat template beside a checkpoint's weights, as text: it is compared, never run."""

import hashlib
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.shards import read_json
from vlsurgery.surgery.errors import CheckpointError

NAME: Final = "chat_template"
MEANING: Final = "Prompts are framed by other words; the result has the template of the model that it is like."

# Most characters of a template that are compared.
MAX_CHARACTERS: Final = 1 << 22


def chat_template(checkpoint: Checkpoint) -> str | None:
    """A checkpoint's chat template, told by its length and the start of its SHA-256; None where it has none. White
    space around it is left out. An adapter's own goes before its base's.

    Raises CheckpointError that names a file which can't be read.
    """
    found = (text.strip() for folder in reversed(checkpoint.folders) if (text := _text(folder)) is not None)
    text = next(found, None)
    if text is None:
        return None
    return f"{len(text)} characters ({hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]})"


def _text(folder: Path) -> str | None:
    plain = folder / "chat_template.jinja"
    if plain.is_file():
        try:
            with plain.open(encoding="utf-8", errors="replace") as opened:
                return opened.read(MAX_CHARACTERS)
        except OSError as error:
            raise CheckpointError(f"{plain}: can't be read ({error.strerror or error}). Check your rights.") from error
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            stated: Any = read_json(folder / name).get("chat_template")
            if isinstance(stated, list):  # several by name, of which "default" is taken
                stated = {each.get("name"): each.get("template") for each in stated if isinstance(each, dict)}
                stated = stated.get("default")
            if isinstance(stated, str):
                return stated[:MAX_CHARACTERS]
    return None
