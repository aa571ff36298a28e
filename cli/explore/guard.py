"""Which requests the page's server answers: those of its own page in the user's browser, and no others.

A page of another site can send requests to a loopback address, and can give its own name that address (DNS
rebinding). So the Host must be ours, the browser must not name another origin, and the path starts with a token that
only the user was told.
"""

import secrets
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import Final

MAX_BODY_BYTES: Final = 1 << 16
MAX_PATH: Final = 4_000  # characters of a request's path and query


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered, in one line."""

    status: HTTPStatus
    reason: str


@dataclass(frozen=True)
class RequestGuard:
    """The checks of one session. port: that the server listens at. token: the first part of every path."""

    port: int
    token: str

    @property
    def hosts(self) -> tuple[str, ...]:
        return (f"127.0.0.1:{self.port}", f"localhost:{self.port}")

    @property
    def address(self) -> str:
        """What the user opens."""
        return f"http://{self.hosts[0]}/{self.token}/"

    def refusal(self, method: str, path: str, headers: Message) -> Refusal | None:
        """Why a request is refused; None where it is answered. Its body is not looked at."""
        if len(path) > MAX_PATH:
            return Refusal(HTTPStatus.REQUEST_URI_TOO_LONG, f"the address is longer than {MAX_PATH} characters")
        found = self._stranger(headers)
        if found is not None:
            return Refusal(HTTPStatus.FORBIDDEN, found)
        if not secrets.compare_digest(_first_part(path).encode(), self.token.encode()):
            return Refusal(HTTPStatus.FORBIDDEN, "no token: open the address that `vlsurgery explore` printed")
        return _body_fault(headers) if method == "POST" else None

    def _stranger(self, headers: Message) -> str | None:
        """What shows that a request does not come from the user's own page."""
        if _values(headers, "Host") not in [[host] for host in self.hosts]:
            return f"another host: this page is at {self.hosts[0]}"
        origins = _values(headers, "Origin")
        if origins and origins not in [[f"http://{host}"] for host in self.hosts]:
            return "another origin: only this page may ask"
        sites = _values(headers, "Sec-Fetch-Site")
        if sites and sites not in (["same-origin"], ["none"]):
            return "another site: open the address yourself"
        return None

    def route(self, path: str) -> tuple[str, str]:
        """A path behind the token, and its query: neither is decoded."""
        behind = path.partition("?")
        return behind[0].removeprefix(f"/{self.token}"), behind[2]


def _first_part(path: str) -> str:
    """The token's place in a path: "/TOKEN/...". Empty where the path is no such one."""
    parts = path.split("/", 2)
    return parts[1] if len(parts) == 3 and not parts[0] else ""


def _values(headers: Message, name: str) -> list[str]:
    return [str(value).strip() for value in headers.get_all(name, [])]


def _body_fault(headers: Message) -> Refusal | None:
    """Why a body is not read."""
    if _values(headers, "Content-Type") != ["application/json"]:
        return Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "expected one Content-Type, application/json")
    length = _values(headers, "Content-Length")
    if headers.get_all("Transfer-Encoding") or len(length) != 1 or not (length[0].isascii() and length[0].isdigit()):
        return Refusal(HTTPStatus.LENGTH_REQUIRED, "expected one Content-Length and no Transfer-Encoding")
    if len(length[0]) > 10 or int(length[0]) > MAX_BODY_BYTES:
        return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES:,} bytes")
    return None
