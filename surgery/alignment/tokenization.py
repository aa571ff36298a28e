"""How a tokenizer cuts text into the tokens of its vocabulary: two can share every token, and cut otherwise."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint.shards import read_json

TOKENIZER: Final = "tokenizer.json"
SHOWN_CHARACTERS: Final = 60

# Settings of a model of tokens that decide how it cuts, and what is taken where they are left out.
_MODEL: Final[Mapping[str, Any]] = {"type": None, "byte_fallback": False, "ignore_merges": False}
# Steps in which versions of one tokenizer differ that write spaces as sentencepiece does.
_SPACES: Final = ("Prepend", "Metaspace", "WhitespaceSplit")
# A setting of where tokens stand in the text, not of which they are.
_PLACES: Final = ("trim_offsets",)


def cutting(file: Path) -> dict[str, str]:
    """Part of a tokenizer -> what it does to text, in a form that can be compared and shown: "merges", "normalizer",
    "pre_tokenizer", and settings of its model. What is spelled in two ways counts as one.

    file: tokenizer.json. Raises CheckpointError where it can't be read.
    """
    data = read_json(file)
    model = data.get("model")
    told = model if isinstance(model, Mapping) else {}
    found = {name: str(told.get(name, default)) for name, default in _MODEL.items()}
    if "type" not in told:
        del found["type"]
    merges = told.get("merges")
    if isinstance(merges, list):
        text = "\n".join(" ".join(map(str, each)) if isinstance(each, list) else str(each) for each in merges)
        found["merges"] = f"{len(merges)} ({hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:8]})"
    for part, key in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")):
        steps = sorted(filter(None, (_told(step) for step in _steps(data.get(part), key))))
        found[part] = ", ".join(steps) or "none"
    return found


def _steps(stated: Any, key: str, depth: int = 4) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer or pre-tokenizer, those of a sequence one by one."""
    if isinstance(stated, Mapping):
        if stated.get("type") == "Sequence" and depth:
            inner = stated.get(key)
            for each in inner if isinstance(inner, list) else ():
                yield from _steps(each, key, depth - 1)
        else:
            yield stated


def _told(step: Mapping[str, Any]) -> str:
    """A step in words; empty for one that only writes spaces."""
    kind = str(step.get("type"))
    if kind in _SPACES or (kind == "Replace" and "\u2581" in str(step.get("content"))):
        return ""
    settings = {key: value for key, value in step.items() if key != "type" and key not in _PLACES}
    text = json.dumps(settings, sort_keys=True, ensure_ascii=False)
    if len(text) > SHOWN_CHARACTERS:
        text = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
    return f"{kind} {text}" if settings else kind
