"""Bounds on what a Hub may send while a model is fetched: bytes, time without progress, replies, names.

huggingface_hub makes its requests by one HTTP client. Inside of `guarded()` that client is the user's own, with these
bounds around it; every fault is a ReplyError, which is a CheckpointError.
"""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from vlsurgery.surgery.checkpoint.hub_replies import ReplyError, check_headers, check_reply
from vlsurgery.surgery.checkpoint.hub_xet import watched_xet
from vlsurgery.surgery.checkpoint.shards import MAX_JSON_BYTES, PICKLED_ENDINGS
from vlsurgery.surgery.runtime.deadline import DeadlinePassed, within
from vlsurgery.surgery.runtime.excerpts import excerpt

# Bounds on replies of the API, and on error pages: bytes of one, of all, and how many.
MAX_REPLY_BYTES: Final = 1 << 25
MAX_ALL_REPLIES_BYTES: Final = 1 << 28
MAX_REPLIES: Final = 2000

# A body must bring so many bytes in so many seconds, and a reply must be there after so many.
MIN_PROGRESS_BYTES: Final = 1 << 16
PROGRESS_SECONDS: Final = 60.0
REPLY_SECONDS: Final = 120.0

# Bodies of one address that may break off, one after the other, without that much progress.
MAX_BROKEN: Final = 5

# The longest wait that a server may order before the next attempt.
MAX_WAIT_SECONDS: Final = 60

# Where a request first went, kept through redirects.
_ORIGIN: Final = "vlsurgery_origin"

_One = threading.Lock()
_Result = TypeVar("_Result")


@contextmanager
def guarded() -> Iterator[None]:
    """Bound the requests of huggingface_hub; afterwards its client is as it was. One download at a time."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    with _One:
        former = _http._GLOBAL_CLIENT_FACTORY
        guard = Guard()
        set_client_factory(lambda: guard.around(former()))
        try:
            with watched_xet(lambda file: _most(file.name), lambda: PROGRESS_SECONDS):
                yield
        finally:
            set_client_factory(former)


class Guard:
    """The bounds on one download, and what it has received so far."""

    def __init__(self) -> None:
        from huggingface_hub import constants

        self.api = f"{constants.ENDPOINT}/api/"
        self.cache = Path(constants.HF_HUB_CACHE)
        self.timeout = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
        self.sizes: dict[str, int] = {}
        self.broken: Counter[str] = Counter()
        self.replies = self.reply_bytes = 0

    def around(self, client: Any) -> Any:
        """The same client, which now keeps the bounds."""
        send = client.send

        def checked(request: Any, **options: Any) -> Any:
            self._before(request)
            response = _within(REPLY_SECONDS, request, lambda: send(request, **options))
            if str(request.url).startswith(self.api) and response.status_code == 200:
                self._reply(request, response)
            return response

        client.send = checked
        client.event_hooks["response"].append(self._received)
        return client

    def _before(self, request: Any) -> None:
        """Ask for bodies as they are, so that sizes are known, and wait for no byte without end."""
        request.headers["Accept-Encoding"] = "identity"
        limits = request.extensions.get("timeout") or {}
        waits = {key: limits.get(key) or self.timeout for key in ("connect", "read", "write", "pool")}
        request.extensions = {**request.extensions, "timeout": waits, _ORIGIN: str(request.url)}

    def _reply(self, request: Any, response: Any) -> None:
        """Check a whole reply of the API, and where it says that the next page is."""
        self.replies += 1
        self.reply_bytes += len(response.content)
        if self.replies > MAX_REPLIES or self.reply_bytes > MAX_ALL_REPLIES_BYTES:
            raise ReplyError(
                f"the server's list of files has no end: {self.replies} replies with {self.reply_bytes} bytes so far. "
                "Check HF_ENDPOINT, or download the model elsewhere and give its folder."
            )
        check_reply(urlsplit(str(request.url)).path, response.content)
        following = response.links.get("next", {}).get("url")
        if following is not None and not following.startswith(self.api):
            raise ReplyError(
                f"the server's list of files goes on elsewhere, at {excerpt(following)}. Check HF_ENDPOINT."
            )

    def _received(self, response: Any) -> None:
        """Check a response's headers, and bound its body, before any of that is read."""
        request, headers = response.request, response.headers
        origin = request.extensions[_ORIGIN]
        if request.method == "HEAD":
            check_headers(headers)
            size = headers.get("X-Linked-Size", None if response.is_redirect else headers.get("Content-Length"))
            if size is not None:
                self.sizes[origin] = self.sizes[headers.get("Location", origin)] = _count(size)
                if _count(size) > _most(origin):
                    raise _too_long(origin, _most(origin))
            return
        encoding = headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise ReplyError(
                f"{origin}: the server sends it compressed ({encoding[:40]}), though it was asked not to, and the size "
                "of what comes out isn't known. Check HF_ENDPOINT and proxies."
            )
        for key in ("Retry-After", "RateLimit"):
            if any(_count(word) > MAX_WAIT_SECONDS for word in _numbers(headers.get(key, ""))):
                del headers[key]
        most = self._limit(origin, response)
        response.iter_raw = self._bounded(origin, response.iter_raw, most)

    def _limit(self, origin: str, response: Any) -> int:
        """The most bytes that the body of a response may have. Raises ReplyError where it promises more."""
        declared = response.headers.get("Content-Length")
        if response.status_code not in (200, 206) or origin.startswith(self.api):
            most = MAX_REPLY_BYTES
        else:
            unknown = MAX_JSON_BYTES if declared is None else _count(declared)
            most = min(self.sizes.get(origin, unknown), _most(origin))
            # A whole file where a range was asked for is not going to be read to its end.
            if response.status_code == 206 or "Range" not in response.request.headers:
                self._check_room(origin, most if declared is None else _count(declared))
        if declared is not None and _count(declared) > most:
            raise _too_long(origin, most)
        return most

    def _check_room(self, origin: str, size: int) -> None:
        place = next(folder for folder in (self.cache, *self.cache.absolute().parents) if folder.exists())
        free = shutil.disk_usage(place).free
        if size > free:
            raise ReplyError(
                f"{origin}: {size} bytes, and {place} has room for {free}. Make room, or set HF_HOME to another disk."
            )

    def _bounded(self, origin: str, body: Callable[..., Iterator[bytes]], most: int) -> Callable[..., Iterator[bytes]]:
        """The pieces of a body, up to `most` bytes and at a pace that ends one day."""

        def pieces(*options: Any, **named: Any) -> Iterator[bytes]:
            if self.broken[origin] > MAX_BROKEN:
                raise _too_slow(origin, f"{MAX_BROKEN} times a few bytes and then nothing")
            total, since, before = 0, time.monotonic(), 0
            whole = False
            try:
                for piece in body(*options, **named):
                    total += len(piece)
                    if total > most:
                        raise _too_long(origin, most)
                    if time.monotonic() - since > PROGRESS_SECONDS:
                        if total - before < MIN_PROGRESS_BYTES:
                            raise _too_slow(origin, f"{total - before} bytes in {PROGRESS_SECONDS:.0f} seconds")
                        since, before = time.monotonic(), total
                    yield piece
                whole = True
            finally:
                self.broken[origin] = 0 if whole or total >= MIN_PROGRESS_BYTES else self.broken[origin] + 1

        return pieces


def _within(seconds: float, request: Any, call: Callable[[], _Result]) -> _Result:
    """What `call` returns or raises, if it does so in that time; else ReplyError, and its thread is left behind.

    A server that sends its headers byte by byte meets no other limit.
    """
    try:
        return within(seconds, call)
    except DeadlinePassed:
        raise _too_slow(str(request.url), f"no whole reply in {seconds:.0f} seconds") from None


def _numbers(text: str) -> list[str]:
    return "".join(letter if letter.isdecimal() else " " for letter in text).split()


def _most(origin: str) -> int:
    """The most bytes that a file may have: weights are bounded by the disk, all others by what is read of them."""
    weights = urlsplit(origin).path.endswith((".safetensors", *PICKLED_ENDINGS))
    return 1 << 63 if weights else MAX_JSON_BYTES


def _count(digits: str) -> int:
    """A count in a header; one that is none, or has too many digits, is larger than any file."""
    return int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 20 else 1 << 64


def _too_long(origin: str, most: int) -> ReplyError:
    return ReplyError(
        f"{origin}: the server sends more than {most} bytes, which is the most that it may be. Try again; if that goes "
        "on, download the model elsewhere and give its folder."
    )


def _too_slow(origin: str, found: str) -> ReplyError:
    return ReplyError(f"{origin}: the server is too slow ({found}). Try again: a download goes on where it stopped.")
