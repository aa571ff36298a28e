"""The page's server answers its own page alone: every other way to ask is refused, and nothing is read or run."""

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from vlsurgery.cli.explore.guard import MAX_BODY_BYTES, MAX_PATH, RequestGuard
from vlsurgery.cli.explore.server import PageServer, Routes
from vlsurgery.surgery.errors import SurgeryError

JSON = {"Content-Type": "application/json"}


def test_it_answers_its_own_page(client: Any) -> None:
    port = client.server.guard.port
    for headers in (
        {},
        {"Host": f"localhost:{port}"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": f"http://127.0.0.1:{port}"},
    ):
        assert client.send("GET", f"/{client.token}/case", headers)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "127.0.0.1.evil.example:PORT"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:PORT"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_hosts_origins_and_sites_are_refused(client: Any, headers: dict[str, str]) -> None:
    port = str(client.server.guard.port)
    sent = {name: value.replace("PORT", port) for name, value in headers.items()}
    for method, path, body in (("GET", "/case", None), ("GET", "/", None), ("POST", "/read", b"{}")):
        status, answered, text = client.send(method, f"/{client.token}{path}", {**JSON, **sent}, body)
        assert status == 403
        assert text.count(b"\n") == 1
        assert client.token.encode() not in text
        assert not [name for name in answered if name.lower().startswith("access-control")]


def test_two_hosts_in_one_request_are_refused(client: Any) -> None:
    """A proxy and a server may each read another one of them."""
    host = client.server.guard.hosts[0]
    lines = [f"GET /{client.token}/case HTTP/1.1", f"Host: {host}", "Host: evil.example", "", ""]
    with socket.create_connection(("127.0.0.1", client.server.guard.port), 30) as connection:
        connection.sendall("\r\n".join(lines).encode())
        assert b" 403 " in connection.recv(1000).splitlines()[0]


@pytest.mark.parametrize(
    "path", ["/", "/case", "/explore.js", "//case", "/TOKE/case", "/TOKENx/case", "/x/TOKEN/case", "/TOKEN", "case"]
)
def test_without_the_token_there_is_nothing(client: Any, path: str) -> None:
    path = path.replace("TOKEN", client.token).replace("TOKE", client.token[:-1])
    status, _, text = client.send("GET", path)
    assert status == 403
    assert client.token.encode() not in text


@pytest.mark.parametrize(
    "path",
    [
        "/../case.json",
        "/%2e%2e/case.json",
        "/..%2fcase.json",
        "/....//case.json",
        "/page/index.html",
        "/index.html",
        "/case.json",
        "/explore.js/../../answers.py",
        "/etc/passwd",
        "//etc/passwd",
        "/case/",
        "/explore.js%00.py",
        "/case;x",
        "/read",
    ],
)
def test_only_what_stands_in_the_table_is_served(client: Any, path: str) -> None:
    status, _, text = client.send("GET", f"/{client.token}{path}")
    assert (status, text) == (404, b"there is nothing at this address\n")


def test_bodies_are_bounded_and_must_be_json_of_a_known_length(client: Any) -> None:
    path = f"/{client.token}/read"

    def status(headers: dict[str, str], body: bytes | None = b"{}") -> int:
        found: int = client.send("POST", path, headers, body)[0]
        return found

    assert status({"Content-Type": "text/plain"}) == 415
    assert status({}) == 415
    assert status({**JSON, "Content-Length": str(MAX_BODY_BYTES + 1)}) == 413
    assert status({**JSON, "Content-Length": "9" * 30}) == 413
    for length in ("-1", "", "+2", "0x2", "2, 2"):
        assert status({**JSON, "Content-Length": length}, None) == 411
    assert status({**JSON, "Transfer-Encoding": "chunked"}) == 411
    assert status(JSON, None) == 411
    for broken in (b"{", b"\xff", b"[" * 50_000, b"NaN", b"[]", b"{}"):
        code, _, text = client.send("POST", path, JSON, broken)
        assert code == 400
        assert list(json.loads(text)) == ["error"]


def test_addresses_are_bounded(client: Any) -> None:
    assert client.send("GET", f"/{client.token}/case?{'x' * MAX_PATH}")[0] == 414
    assert client.send("GET", "/" + "x" * 70_000)[0] == 414
    status, answer = client.get("/pair?" + "&".join(f"f{at}=1" for at in range(60)))
    assert status == 400
    assert "query" in answer["error"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "CONNECT", "<b>"])
def test_other_methods_are_refused_in_one_line(client: Any, method: str) -> None:
    status, headers, text = client.send(method, f"/{client.token}/case")
    assert status == 501
    assert headers["Content-Type"].startswith("text/plain")
    assert b"<" not in text


def test_the_page_is_confined(client: Any) -> None:
    for path in ("/", "/case", "/nothing"):
        headers = client.send("GET", f"/{client.token}{path}")[1]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "script-src 'self';" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"


def test_the_page_asks_for_nothing_from_elsewhere(client: Any) -> None:
    for path in ("/", "/explore.js", "/explore.css"):
        text = client.send("GET", f"/{client.token}{path}")[2].decode()
        assert "http" not in text.replace("http-equiv", "")
        assert not {"innerHTML", "insertAdjacentHTML", "document.write", "eval("} & {*text.split()}


def test_it_listens_to_this_machine_alone(client: Any) -> None:
    assert client.server.server_address[0] == "127.0.0.1"


def test_every_token_is_new_and_long() -> None:
    from vlsurgery.cli.explore.session import TOKEN_BYTES

    assert TOKEN_BYTES >= 16
    guard = RequestGuard(8000, "t0ken")
    assert guard.address == "http://127.0.0.1:8000/t0ken/"


def test_a_port_that_is_taken_is_said_in_one_line(client: Any) -> None:
    with pytest.raises(SurgeryError, match=r"--port \d+: can't be listened at .*leave it out"):
        PageServer(client.server.guard.port, "t", Routes())


def test_a_bug_is_one_line_in_the_page_and_a_traceback_in_the_terminal(
    serving: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(fields: dict[str, str]) -> None:
        raise KeyError(f"a secret of {fields}")

    with serving(PageServer(0, "t", Routes(reads={"/broken": broken}))) as one:
        status, answer = one.get("/broken")
    assert (status, list(answer)) == (500, ["error"])
    assert "secret" not in answer["error"]
    assert "KeyError: " in capfd.readouterr().err


def test_two_requests_are_answered_at_once(serving: Any) -> None:
    """The first answer waits for the second request: one after the other they would never end."""
    both = threading.Barrier(2, timeout=20)

    def meet(fields: dict[str, str]) -> dict[str, str]:
        both.wait()
        return fields

    found: list[Any] = []
    with serving(PageServer(0, "t", Routes(reads={"/meet": meet}))) as two:
        threads = [threading.Thread(target=lambda at=at: found.append(two.get(f"/meet?n={at}"))) for at in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(found, key=str) == [(200, {"n": "0"}), (200, {"n": "1"})]


def test_nothing_is_written(client: Any, explored: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in explored.rglob("*")}
    client.get("/case")
    client.get("/completions?grep=cat")
    assert client.read(role="graft")[0] == 200
    assert {path: path.stat().st_mtime_ns for path in explored.rglob("*")} == before
