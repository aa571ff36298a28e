"""The page's server: checks a request, hands it to the answer of its path, and sends that with headers that confine it.

No path names a file: what can be asked for stands in a table. Nothing is written.
"""

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final
from urllib.parse import parse_qsl

from vlsurgery.cli.explore.guard import Refusal, RequestGuard
from vlsurgery.surgery.errors import SurgeryError

LOOPBACK: Final = "127.0.0.1"
PATIENCE: Final = 30  # seconds that a client may take to send a request
MAX_FIELDS: Final = 24  # of a query
HEADERS: Final = {
    # plotly sets styles in the page, so that inline ones must be allowed; scripts come from this server alone.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
Fields = dict[str, str]


@dataclass(frozen=True)
class Asset:
    """A file of ours, sent as it is."""

    kind: str
    body: bytes


@dataclass(frozen=True)
class Routes:
    """What can be asked for. assets: path -> file. reads: path -> answer to a query. acts: path -> answer to the JSON
    of a body. An answer is JSON, or a SurgeryError that the page shows."""

    assets: Mapping[str, Asset] = field(default_factory=dict)
    reads: Mapping[str, Callable[[Fields], Any]] = field(default_factory=dict)
    acts: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)


class PageServer(ThreadingMixIn, TCPServer):
    """Serves one case to one user, on the loopback address. Two requests are answered at once."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, token: str, routes: Routes) -> None:
        """port: 0 for a free one. Raises SurgeryError where it can't be had."""
        try:
            super().__init__((LOOPBACK, port), Handler)
        except OSError as error:
            raise SurgeryError(
                f"--port {port}: can't be listened at ({error.strerror}). Give another one, or leave it out for a "
                "free one."
            ) from error
        self.guard = RequestGuard(self.server_address[1], token)
        self.routes = routes

    def serve_until_interrupted(self) -> None:
        """Serve until Ctrl-C, which is how it ends; a signal that asks the program to end goes on as one."""
        try:
            self.serve_forever()
        except KeyboardInterrupt as end:
            if type(end) is not KeyboardInterrupt:
                raise

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """A browser that closes a tab ends its connections: that is no fault."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: PageServer
    timeout = PATIENCE
    server_version = "vlsurgery"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        refusal = self.server.guard.refusal(method, self.path, self.headers)
        if refusal is not None:
            self._refuse(refusal)
            return
        path, query = self.server.guard.route(self.path)
        routes = self.server.routes
        if method == "GET" and path in routes.assets:
            asset = routes.assets[path]
            self._send(HTTPStatus.OK, asset.kind, asset.body)
        elif method == "GET" and path in routes.reads:
            self._send_json(lambda: routes.reads[path](_fields(query)))
        elif method == "POST" and path in routes.acts:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._send_json(lambda: routes.acts[path](_parsed(body)))
        else:
            self._refuse(Refusal(HTTPStatus.NOT_FOUND, "there is nothing at this address"))

    def _send_json(self, answer: Callable[[], Any]) -> None:
        """Send an answer; a fault that the user can mend as one line, and a bug as one that says so."""
        try:
            status, found = HTTPStatus.OK, answer()
        except SurgeryError as error:
            status, found = HTTPStatus.BAD_REQUEST, {"error": str(error)}
        except Exception as error:  # noqa: BLE001  the page must learn of any bug; its traceback goes to the terminal
            traceback.print_exc()
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            found = {"error": f"a bug in vlsurgery ({type(error).__name__}); the terminal has its traceback"}
        self._send(status, "application/json", json.dumps(found, allow_nan=False).encode())

    def _refuse(self, refusal: Refusal) -> None:
        self._send(refusal.status, "text/plain; charset=utf-8", f"{refusal.reason}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """What http.server itself refuses: a line that is too long, an unknown method."""
        self._refuse(Refusal(HTTPStatus(code), HTTPStatus(code).phrase.lower()))

    def log_message(self, format: str, *args: object) -> None:
        """Keeps silent: requests are the user's own."""


def _fields(query: str) -> Fields:
    """The fields of a query. Raises SurgeryError for one that is given twice, and for too many."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as error:
        raise SurgeryError(f"the query can't be read ({error}). Load the page again.") from error
    found = dict(pairs)
    if len(found) < len(pairs):
        raise SurgeryError("a field of the query is given twice. Load the page again.")
    return found


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise SurgeryError("the body of the request is not JSON. Load the page again.") from error
