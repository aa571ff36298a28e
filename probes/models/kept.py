"""Encoded prompts that are kept, since base, graft and fit ask the same ones again."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from PIL.Image import Image

from vlsurgery.probes.models.batches import Encoded
from vlsurgery.probes.prompts import Prompt

MAX_KEPT_BYTES: Final = 256 * 2**20


class KeptPrompts:
    """Encoded prompts by what is asked, the least used of them let go where they take more than MAX_KEPT_BYTES."""

    def __init__(self, most: int = MAX_KEPT_BYTES) -> None:
        self._most = most
        self._bytes = 0
        self._kept: OrderedDict[object, Encoded] = OrderedDict()

    def get(self, prompt: Prompt, make: Callable[[Prompt], Encoded]) -> Encoded:
        """The encoded prompt: a kept one where the same text and picture were asked, else what `make` makes."""
        key = (prompt.text, _picture_key(prompt.image))
        if key in self._kept:
            self._kept.move_to_end(key)
            return replace(self._kept[key], prompt=prompt)
        found = make(prompt)
        if _bytes(found) <= self._most:
            self._kept[key] = found
            self._bytes += _bytes(found)
            while self._bytes > self._most:
                self._bytes -= _bytes(self._kept.popitem(last=False)[1])
        return found


def _picture_key(picture: Image | Path | None) -> object:
    """A picture's identity: of a file its state, of pixels the object, which the kept prompt holds alive."""
    if not isinstance(picture, Path):
        return None if picture is None else id(picture)
    try:
        state = picture.stat()
    except OSError:  # like none that is kept: who opens it tells what is wrong with it
        return object()
    return str(picture), state.st_mtime_ns, state.st_size


def _bytes(item: Encoded) -> int:
    return item.ids.nbytes + sum(tensor.nbytes for tensor in item.pictures.values())
