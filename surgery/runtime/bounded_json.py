"""JSON from elsewhere, without its traps: pipes, files without end, nesting without end, numbers without end."""

import json
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.runtime.regular_file import read_regular

MAX_BYTES: Final = 1 << 28  # of a file; the index and the tokenizer of any model are shorter
MAX_DEPTH: Final = 100  # lists and objects inside of each other


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError of one short line for what is none, or is nested too deep."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from error
    except ValueError as error:
        raise ValueError(" ".join(str(error).split())[:200]) from error
    check_depth(value)
    return value


def read_json_file(path: Path, limit: int = MAX_BYTES) -> Any:
    """The value of a JSON file. Raises OSError as `read_regular`, and ValueError as `parse_json`."""
    return parse_json(read_regular(path, limit))


def check_depth(value: Any) -> None:
    """Raise ValueError where lists and objects are nested so deep that what walks them could run out of stack."""
    level = [value]
    for _ in range(MAX_DEPTH):
        inner = (part for each in level if isinstance(each, dict | list) for part in _parts(each))
        level = [part for part in inner if isinstance(part, dict | list)]
        if not level:
            return
    raise ValueError(f"nested deeper than {MAX_DEPTH} levels")


def _parts(holder: dict[str, Any] | list[Any]) -> Any:
    return holder.values() if isinstance(holder, dict) else holder
