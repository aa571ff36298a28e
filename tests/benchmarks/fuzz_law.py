"""The law of every file from elsewhere: the right result, or one short line; in bounded time and memory, with nothing
else touched, no process started and no connection made."""

import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.visible import visible

MAX_LINE: Final = 1000
MAX_SECONDS: Final = 5.0  # of the processor, so that a busy machine is no fault
MAX_WAIT_SECONDS: Final = 60.0
MAX_MORE_BYTES: Final = 768 * 2**20  # of address space, beyond what the process has when the first example is read

# What Python tells of before it does it, and the place of the path among what it tells.
WRITES: Final = {
    "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.link": (0, 1), "os.symlink": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "shutil.rmtree": (0,),
}  # fmt: skip
NEVER: Final = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect")
FLAGS: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
    """What the process does while it is armed, of what a file from elsewhere must not bring it to do."""

    def __init__(self, *own: Path) -> None:
        """own: the folders in which it may write."""
        self._own = tuple(os.path.realpath(folder) for folder in own)
        self._armed = False
        self.seen: list[str] = []
        sys.addaudithook(self._look)

    @contextmanager
    def armed(self) -> Iterator[None]:
        self.seen, self._armed = [], True
        try:
            yield
        finally:
            self._armed = False

    def _look(self, event: str, given: tuple[Any, ...]) -> None:
        if not self._armed:
            return
        if event in NEVER:
            self.seen.append(f"{event} {given!r:.200}")
        elif event == "open" and isinstance(given[2], int) and given[2] & FLAGS:
            self._write(event, given[0])
        elif event in WRITES:
            for place in WRITES[event]:
                self._write(event, given[place])

    def _write(self, event: str, path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike):
            return
        real = os.path.realpath(os.fsdecode(path))
        if real != os.devnull and not real.startswith(self._own):
            self.seen.append(f"{event} {real}")


def bound_memory() -> None:
    """Bound the address space, so that a file that asks for too much ends in a MemoryError, which is a fault."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MAX_MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def hold(watch: Watch, read: Callable[[], Any]) -> Any:
    """What `read` returns, or None where it refuses as it should. Raises AssertionError where the law is broken, and
    whatever else `read` raises."""
    began = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, MAX_WAIT_SECONDS)
    try:
        with watch.armed():
            found = read()
    except SurgeryError as error:
        found = None
        line = str(error)
        assert line == visible(line), f"control characters: {line!r}"
        assert len(line.splitlines()) == 1, f"not one line: {line!r}"
        assert len(line) < MAX_LINE, f"{len(line)} characters: {line!r}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    took = time.process_time() - began
    assert took < MAX_SECONDS, f"{took:.1f} seconds"
    assert not watch.seen, f"touched: {watch.seen}"
    return found


def too_late(*_: object) -> None:
    raise AssertionError(f"more than {MAX_WAIT_SECONDS:.0f} seconds")


signal.signal(signal.SIGALRM, too_late)
