"""Checkpoints on a web server that counts what it is asked for: a header to open, each byte once to merge, no trust."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.remote import http_store, remote_file, store
from vlsurgery.surgery.checkpoint.remote.store import UnreachableError
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge import kept_ranges, pieces, streams
from vlsurgery.surgery.merge.preparation import prepare_merge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.methods import magnitude_threshold

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
WEIGHTS = "model.safetensors"
# Bytes beside those of weights: headers, and the blocks that identities sample, each twice.
SLACK_BYTES = 3 << 20


class FileServer(ThreadingHTTPServer):
    """The files of a directory, by ranges.

    asked: (file, first byte, byte behind the last) of every request. sent: file -> bytes. spoil: is given the handler
    of a request for weights before it is answered; where it returns True, it has answered.
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), FileHandler)
        self.root = root
        self.asked: list[tuple[str, int, int]] = []
        self.sent: Counter[str] = Counter()
        self.spoil: Callable[[FileHandler], bool] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what tests are about."""


class FileHandler(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""

    @property
    def file(self) -> Path:
        return self.server.root / self.path.strip("/")

    @property
    def range(self) -> tuple[int, int, int]:
        """The first byte that is asked for, the one behind the last, and the file's size."""
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert found is not None
        size = self.file.stat().st_size
        return int(found[1]), min(int(found[2]) + 1, size), size

    def do_GET(self) -> None:
        spoil = self.server.spoil if self.path.endswith(WEIGHTS) else None
        if not self.file.is_file():
            self.reply(404)
        elif spoil is None or not spoil(self):
            self.send()

    def send(self, shift: int = 0, more: int = 0, length: int | None = None, tag: str = "") -> None:
        """The bytes that were asked for. shift: it says that they begin so many bytes later. more: and so many of
        others. length: that it promises. tag: of another version."""
        start, stop, size = self.range
        self.server.asked.append((self.path, start, stop))
        if start >= size:
            self.reply(416, **{"Content-Range": f"bytes */{size}"})
            return
        with self.file.open("rb") as opened:
            opened.seek(start)
            body = opened.read(stop - start)
        self.server.sent[self.path] += len(body)
        told = {"Content-Range": f"bytes {start + shift}-{stop - 1}/{size}", "ETag": tag or f"{self.file.stat()}"}
        self.reply(206, body + b"x" * more, length, **told)

    def reply(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = length is not None


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of what lies in tmp_path; no wait before a second request."""
    monkeypatch.setattr(store, "WAIT_SECONDS", 0.0)
    server = FileServer(tmp_path)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def model(tmp_path: Path, write: Write, llama: Llama) -> Path:
    return write(tmp_path / "model", llama())


def test_each_byte_of_weights_is_fetched_once_and_a_header_opens(
    web: FileServer, tmp_path: Path, write: Write, llama: Llama
) -> None:
    paths = {role: write(tmp_path / role, llama(seed, vocab=45_000)) for seed, role in enumerate(("base", "adapted"))}
    (tmp_path / "adapted" / "tokenizer_config.json").write_text("{}")
    (tmp_path / "adapted" / "LICENSE").write_text("free")
    size = (tmp_path / "base" / WEIGHTS).stat().st_size
    listed = Checkpoint.open(f"{web.url}/base", headers_only=True)
    assert len(listed) == 21
    assert sum(web.sent.values()) < remote_file.PART_BYTES
    web.sent.clear()
    models = {role: Checkpoint.open(f"{web.url}/{role}") for role in paths}
    assert models["base"].identity == Checkpoint.open(paths["base"]).identity
    run_merge(Recipe.of(models, {"everywhere": {"base": 0.4}}), tmp_path / "away")
    for role in paths:
        assert size <= web.sent[f"/{role}/{WEIGHTS}"] <= size + SLACK_BYTES
    assert max(stop - start for _, start, stop in web.asked) <= remote_file.PART_BYTES
    here = {role: Checkpoint.open(path) for role, path in paths.items()}
    run_merge(Recipe.of(here, {"everywhere": {"base": 0.4}}), tmp_path / "here")
    for name in (WEIGHTS, "config.json", "tokenizer_config.json", "LICENSE"):
        assert (tmp_path / "away" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


@pytest.mark.parametrize(
    ("method", "way"), [("ties", "all threads"), ("ties", "one thread"), ("slerp", "all threads"), ("ties", "no room")]
)
def test_what_a_method_reads_twice_is_fetched_once(
    web: FileServer, tmp_path: Path, write: Write, llama: Llama, monkeypatch: pytest.MonkeyPatch, method: str, way: str
) -> None:
    """Sites that are prepared by all threads, or by one that can't hold them; without room they are fetched again."""
    monkeypatch.setattr(pieces, "MAX_SINGLE_PIECE_SIZE", 1 << 24 if way == "one thread" else 20)
    monkeypatch.setattr(pieces, "MAX_RESIDENT_BYTES", 0)
    for module, name in ((pieces, "PIECE_SIZE"), (streams, "READ_SIZE")):
        monkeypatch.setattr(module, name, 1 << 9)
    monkeypatch.setattr(magnitude_threshold, "SAMPLE_RUN_SIZE", 1)  # what is sampled is not kept
    monkeypatch.setattr(magnitude_threshold, "MAX_BINS", 1 << 10)
    if way == "no room":
        monkeypatch.setattr(kept_ranges, "FREE_BYTES", 1 << 60)
    roles = ("base", "adapted", "safety") if method == "ties" else ("base", "safety")
    paths = {role: write(tmp_path / role, llama(seed, vocab=400)) for seed, role in enumerate(roles)}
    how = {"parameters": {"default": {"density": 0.5}}} if method == "ties" else {}

    def merged(places: Mapping[str, str | Path]) -> dict[str, str]:
        models = {role: Checkpoint.open(place) for role, place in places.items()}
        weights = {"embed": dict.fromkeys(roles[1:], 0.4)}
        recipe = Recipe.of(models, weights, method=method, like="base", base="base", **how)
        prepared = prepare_merge(recipe, align(models, "base"))
        web.sent.clear()
        return run_merge(recipe, tmp_path / "out", prepared=prepared).shards

    wanted = merged(paths)
    assert merged({role: f"{web.url}/{role}" for role in roles}) == wanted
    size = Checkpoint.open(paths["safety"])["model.embed_tokens.weight"].nbytes
    sent = web.sent[f"/safety/{WEIGHTS}"]
    # Samples, and a check that the file is the same one, ask for a few bytes more.
    assert sent > 1.8 * size if way == "no room" else size <= sent < 1.2 * size
    assert {path.name for path in tmp_path.iterdir()} == {*roles, "out"}


def sending(**how: Any) -> Callable[[FileHandler], bool]:
    def answer(handler: FileHandler) -> bool:
        handler.send(**how)
        return True

    return answer


def whole(handler: FileHandler) -> bool:
    handler.reply(200, b"x" * 100)
    return True


def hung(handler: FileHandler) -> bool:
    time.sleep(1)
    return True


def answering(status: int, **headers: str) -> Callable[[FileHandler], bool]:
    def answer(handler: FileHandler) -> bool:
        handler.reply(status, b"no", **headers)
        return True

    return answer


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (
            sending(tag="another"),
            CheckpointError,
            r"changed while it was being read: it had \d+ bytes and version .* and another",
        ),
        (whole, CheckpointError, "doesn't answer range requests"),
        (sending(more=9), CheckpointError, "sends more bytes than were asked for"),
        (sending(shift=1), CheckpointError, r"sends bytes from \d+, not \d+"),
        (answering(206, **{"Content-Encoding": "gzip"}), CheckpointError, "doesn't answer range requests"),
        (answering(206), CheckpointError, "does not say how long the file is"),
        (answering(404), CheckpointError, "went away after it was found"),
        (answering(403), UnreachableError, r"no access \(the server answers 403\)"),
        (answering(503), UnreachableError, r"can't be had \(the server answers 503, 3 times\)"),
        (sending(length=10**6), UnreachableError, r"bytes \d+ to \d+: can't be had"),
        (hung, UnreachableError, r"bytes \d+ to \d+: can't be had"),
    ],
)
def test_what_a_server_does_to_a_range_is_told(
    web: FileServer,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[FileHandler], bool],
    kind: type[CheckpointError],
    said: str,
) -> None:
    monkeypatch.setattr(http_store, "SILENT_SECONDS", 0.1)
    checkpoint = Checkpoint.open(f"{web.url}/model")
    tensor = checkpoint["model.layers.0.self_attn.q_proj.weight"]
    web.spoil = spoil
    with pytest.raises(kind, match=rf"^{web.url}/model/{WEIGHTS}: .*({said})"):
        tensor.load()
    web.spoil = None
    assert tensor.load().equal(Checkpoint.open(model)[tensor.name].load())


def test_a_fault_that_goes_away_is_not_told(web: FileServer, model: Path) -> None:
    faults = [answering(500), sending(length=10**6)]
    web.spoil = lambda handler: bool(faults) and faults.pop()(handler)
    checkpoint = Checkpoint.open(f"{web.url}/model")
    assert not faults
    assert checkpoint.identity == Checkpoint.open(model).identity


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (("config.json", WEIGHTS), "nothing is there. Check the URL"),
        ((WEIGHTS,), "not a checkpoint: neither"),
        (("config.json",), "no config.json beside the weights"),
    ],
)
def test_what_is_not_there_is_told(web: FileServer, model: Path, missing: tuple[str, ...], said: str) -> None:
    for name in missing:
        (model / name).unlink()
    with pytest.raises(CheckpointError, match=said):
        Checkpoint.open(f"{web.url}/model")


def test_credentials_come_from_netrc_and_stay_out_of_what_is_recorded(
    web: FileServer, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password hunter2\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    seen: list[Any] = []
    web.spoil = lambda handler: bool(seen.append(handler.headers["Authorization"]))
    ref = Checkpoint.open(f"{web.url}/model").ref_model
    assert set(seen) == {"Basic bWU6aHVudGVyMg=="}
    assert ref.path == f"{web.url}/model"
