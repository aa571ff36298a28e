"""What a store of objects is asked for, and requests that are made again where they fail."""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.deadline import DeadlinePassed, within
from vlsurgery.surgery.runtime.visible import visible

# Requests for one thing at most, the wait before the second one, and how much longer each further wait is.
ATTEMPTS: Final = 3
WAIT_SECONDS: Final = 0.5
WAIT_GROWTH: Final = 4
# Seconds that one request may take, whatever a store's library thinks of it.
REQUEST_SECONDS: Final = 60.0

Brought = TypeVar("Brought")


class UnreachableError(CheckpointError):
    """Nothing can be had at a checkpoint's URL from here and now: it may be gone, or hidden, or far away."""


@dataclass(frozen=True)
class RemoteStat:
    """A file in a store. version: what changes when it is written again (an ETag, a generation, or else a time);
    empty where the store tells none."""

    size: int
    version: str

    @property
    def version_number(self) -> int:
        """The version in place of a modification time."""
        return int.from_bytes(hashlib.sha256(self.version.encode()).digest()[:7])


class Store(Protocol):
    """A folder in a store, by the names of what is in it. Every method makes one request, or as many as a folder has
    pages, and raises FileNotFoundError for what is not there."""

    def listing(self, folder: str) -> Mapping[str, RemoteStat | None] | None:
        """Name -> file, or None for a folder, of all that is in a folder ("" is the whole); None where the store lists
        nothing."""
        ...

    def stat(self, name: str) -> RemoteStat:
        """One file, by its path from the folder; asked of stores that list nothing."""
        ...

    def read(self, name: str, start: int, stop: int, expected: RemoteStat) -> bytes:
        """The bytes `start` to `stop` of a file, or fewer at its end. expected: the file as it was found; where the
        store tells with the bytes that it is another one by now, CheckpointError."""
        ...


def requested(what: str, request: Callable[[], Brought]) -> Brought:
    """What a request brings. It is made again where it fails or takes too long, a few times.

    what: is asked for, in errors. Raises FileNotFoundError and CheckpointError as the request does, UnreachableError
    for all others.
    """
    fault = ""
    cause: Exception | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT_SECONDS * WAIT_GROWTH ** (attempt - 1))
        try:
            return within(REQUEST_SECONDS, request)
        except (FileNotFoundError, CheckpointError):
            raise
        except DeadlinePassed as error:
            fault, cause = f"nothing in {REQUEST_SECONDS:g} seconds", error
        except Exception as error:
            fault, cause = _line(error), error
            if _is_refusal(error):
                raise UnreachableError(
                    f"{what}: no access ({fault}). Give credentials by environment variables or the store's own file, "
                    "and check that they may list and read it."
                ) from error
    raise UnreachableError(
        f"{what}: can't be had ({fault}, {ATTEMPTS} times). Check the URL, the network and the store's endpoint, and "
        "give the same command again."
    ) from cause


def _is_refusal(error: Exception) -> bool:
    """Whether a store refuses, or its library has no credentials to ask with: asking again changes nothing."""
    return isinstance(error, PermissionError) or any(
        word in type(error).__name__ for word in ("Credential", "Authentication", "Forbidden", "AccessDenied")
    )


def _line(error: BaseException) -> str:
    return " ".join(visible(str(error)).split())[:200] or type(error).__name__
