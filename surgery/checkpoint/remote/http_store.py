"""A folder on a web server that answers range requests. It lists nothing: files are asked for by their names."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from vlsurgery.surgery.checkpoint.remote.store import RemoteStat
from vlsurgery.surgery.errors import CheckpointError

if TYPE_CHECKING:
    import httpx

# Seconds without a byte after which a connection is given up.
SILENT_SECONDS: Final = 20.0

_RANGE: Final = re.compile(r"bytes (?P<start>\d{1,19})-(?P<last>\d{1,19})/(?P<size>\d{1,19})")
_BEYOND: Final = re.compile(r"bytes \*/(?P<size>\d{1,19})")
_GONE: Final = (404, 410)
_REFUSED: Final = (401, 403, 407)


class HttpStore:
    """A folder by its http(s) URL. Credentials are those of ~/.netrc, proxies those of the environment."""

    def __init__(self, url: str) -> None:
        import httpx

        netrc = Path("~/.netrc").expanduser()
        self._url = url
        self._client = httpx.Client(
            auth=httpx.NetRCAuth(str(netrc)) if netrc.is_file() else None,
            follow_redirects=True,
            timeout=SILENT_SECONDS,
            headers={"Accept-Encoding": "identity", "User-Agent": "vlsurgery"},
        )

    def listing(self, folder: str) -> None:
        """Nothing: a web server's pages are made for people."""

    def stat(self, name: str) -> RemoteStat:
        """Size and version of a file, by a request for its first byte."""
        with self._asked(name, 0, 1) as response:
            return self._found(name, response)

    def read(self, name: str, start: int, stop: int, expected: RemoteStat) -> bytes:
        """The bytes `start` to `stop` of a file. Raises CheckpointError where it is another file by now, or the server
        sends other bytes than were asked for."""
        with self._asked(name, start, stop) as response:
            found = self._found(name, response)
            if found != expected:
                raise CheckpointError(
                    f"{self._url}/{name}: changed while it was being read: it had {expected.size} bytes and version "
                    f"{expected.version}, and has {found.size} and {found.version}. Begin again once nothing writes "
                    "to it."
                )
            sent = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if sent is not None and int(sent["start"]) != start:
                raise CheckpointError(f"{self._url}/{name}: the server sends bytes from {sent['start']}, not {start}.")
            received = bytearray()
            for piece in response.iter_raw():
                received += piece
                if len(received) > stop - start:
                    raise CheckpointError(f"{self._url}/{name}: the server sends more bytes than were asked for.")
            return bytes(received)

    @contextmanager
    def _asked(self, name: str, start: int, stop: int) -> Iterator["httpx.Response"]:
        """The response to a request for some bytes, its body not read yet. Raises FileNotFoundError, PermissionError,
        OSError for other faults of the server, CheckpointError where it does not answer such requests."""
        place = f"{self._url}/{quote(name)}"
        with self._client.stream("GET", place, headers={"Range": f"bytes={start}-{stop - 1}"}) as response:
            status = response.status_code
            if status in _GONE:
                raise FileNotFoundError(place)
            if status in _REFUSED:
                raise PermissionError(f"the server answers {status}")
            encoding = response.headers.get("Content-Encoding", "identity")
            if status == 200 or encoding != "identity":
                raise CheckpointError(
                    f"{self._url}/{name}: the server doesn't answer range requests, so the whole would have to be "
                    "fetched. Copy the checkpoint to a directory, and give that."
                )
            if status not in (206, 416):
                raise OSError(f"the server answers {status}")
            yield response

    def _found(self, name: str, response: "httpx.Response") -> RemoteStat:
        told = response.headers.get("Content-Range", "")
        # An empty file has no first byte.
        match = _RANGE.fullmatch(told) or _BEYOND.fullmatch(told)
        if match is None:
            raise CheckpointError(
                f"{self._url}/{name}: the server does not say how long the file is. Copy the checkpoint to a directory."
            )
        version = response.headers.get("ETag") or response.headers.get("Last-Modified") or ""
        return RemoteStat(int(match["size"]), version)
