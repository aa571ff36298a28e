"""Bounds on what comes by Xet, the Hub's storage of large files, whose library makes its requests by itself.

No HTTP client of ours sees those bytes: the file that they are written to is watched instead. It may have the size that
the server has named for it before, and must change within the time that any body has to make progress in.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint.hub_replies import ReplyError

POLL_SECONDS: Final = 0.2


@contextmanager
def watched_xet(most: Callable[[Path], int], seconds: Callable[[], float]) -> Iterator[None]:
    """Watch what huggingface_hub downloads by Xet; afterwards its function is as it was.

    most: the most bytes that a file may have, by the name that it is shown under. seconds: without progress.
    """
    from huggingface_hub import file_download

    former = file_download.xet_get

    def bounded(**given: Any) -> None:
        file, size = Path(given["incomplete_path"]), given.get("expected_size")
        name = Path(given.get("displayed_filename") or file.name)
        if size is None or size > most(name):
            named = "no size" if size is None else f"{size} bytes"
            raise ReplyError(
                f"{name}: the server names {named} for it, and {most(name)} is the most. Check HF_ENDPOINT."
            )
        _check_room(file, size)
        _watch(name, file, size, seconds(), lambda: former(**given))

    file_download.xet_get = bounded
    try:
        yield
    finally:
        file_download.xet_get = former


def _check_room(file: Path, size: int) -> None:
    held = file.stat().st_size if file.exists() else 0
    free = shutil.disk_usage(file.parent).free
    if size > free + held:
        raise ReplyError(
            f"{file.parent}: a file of {size} bytes, and room for {free}. Make room, or set HF_HOME to another disk."
        )


def _watch(name: Path, file: Path, size: int, seconds: float, fetch: Callable[[], None]) -> None:
    """Run `fetch` in a thread of its own while the file that it writes is looked at. Raises ReplyError where it grows
    beyond `size` bytes, doesn't change for `seconds`, or ends with another size; the thread is then left behind."""
    outcome: Future[None] = Future()

    def work() -> None:
        try:
            fetch()
            outcome.set_result(None)
        except BaseException as error:  # noqa: BLE001  (handed to the thread that waits)
            outcome.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    waited, before = 0.0, _state(file)
    while True:
        try:
            outcome.result(POLL_SECONDS)
            break
        except TimeoutError:
            if outcome.done():
                raise
        now = _state(file)
        if now[0] > size:
            _stop()
            raise ReplyError(f"{name}: the server sends more than the {size} bytes that it has named. Try again.")
        waited = waited + POLL_SECONDS if now == before else 0.0
        before = now
        if waited >= seconds:
            _stop()
            raise ReplyError(f"{name}: the server is too slow (nothing in {seconds:.0f} seconds). Try again.")
    if _state(file)[0] != size:
        raise ReplyError(f"{name}: {_state(file)[0]} bytes came of the {size} that the server has named. Try again.")


def _state(file: Path) -> tuple[int, int, int]:
    """Size, blocks on the disk and time of the last write of a file; one that is written in parts grows in blocks."""
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return 0, 0, 0
    return status.st_size, getattr(status, "st_blocks", 0), status.st_mtime_ns


def _stop() -> None:
    """Have the library give up what it is doing, where this version of huggingface_hub can."""
    from huggingface_hub.utils import _xet

    abort = getattr(_xet, "abort_xet_session", None)
    if abort is not None:
        abort()
