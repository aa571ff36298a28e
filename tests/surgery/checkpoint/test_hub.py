"""Models by name, from a Hub on this machine that counts what it sends: resolved, cached, resumed, listed, refused."""

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vlsurgery.surgery.checkpoint.headers import header_bytes
from vlsurgery.surgery.checkpoint.hub import HubName
from vlsurgery.surgery.checkpoint.hub_guard import guarded
from vlsurgery.surgery.checkpoint.shards import INDEX

HOUSE = Path(__file__).parents[3]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLD = "89abcdef0123456789abcdef0123456789abcdef"

# What every test runs, in a process of its own, because huggingface_hub reads its settings when it is imported.
SCRIPT = """
import json, sys
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.hub import download_code
from vlsurgery.surgery.errors import CheckpointError
options = json.loads(sys.argv[2])
code = options.pop("code", False)
try:
    held = Checkpoint.open(sys.argv[1], **options)
    if code:
        download_code(held.path)
    first = min(held)
    print(json.dumps({
        "path": str(held.path), "tensors": len(held), "commit": held.commit, "identity": held.identity,
        "location": held.location, "shapes": {name: held[name].shape for name in sorted(held)[:3]},
        "extra": list(held.companions), "notes": held.notes,
    }))
    if sys.argv[3] == "load":
        print(float(held[first].load().double().sum()))
except CheckpointError as error:
    print(f"refused: {error}")
"""


class Hub(ThreadingHTTPServer):
    """The few endpoints of a Hub that downloads use. files: revision -> path -> content.

    sent: bytes of bodies. requests: method and path. cut: close the connection after that many bytes of a body, once.
    """

    daemon_threads = True

    def __init__(self, model: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.model = model
        self.files: dict[str, Mapping[str, Any]] = {}
        self.sent = 0
        self.requests: list[str] = []
        self.cut: int | None = None
        self.token: str | None = None
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, path = self.server, self.path.split("?")[0]
        hub.requests.append(f"{self.command} {path}")
        api, resolve = f"/api/models/{hub.model}", f"/{hub.model}/resolve/"
        if not path.startswith((api, resolve)):
            return self.fail(404, "RepoNotFound")
        if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.fail(403, "GatedRepo")
        if path.startswith(api):
            action, _, revision = path.removeprefix(api).strip("/").partition("/")
            commit = self.commit(revision or "main")
            if commit is None:
                return self.fail(404, "RevisionNotFound")
            files = hub.files[commit]
            if action == "tree":
                return self.reply(json.dumps([self.entry(name, data) for name, data in files.items()]).encode())
            siblings = [{"rfilename": name} for name in files]
            return self.reply(json.dumps({"id": hub.model, "sha": commit, "siblings": siblings}).encode())
        revision, _, name = path.removeprefix(resolve).partition("/")
        commit = self.commit(revision)
        if commit is None:
            return self.fail(404, "RevisionNotFound")
        if name not in hub.files[commit]:
            return self.fail(404, "EntryNotFound")
        data = hub.files[commit][name]
        return self.reply(data, {"ETag": f'"{self.entry(name, data)["oid"]}"', "X-Repo-Commit": commit})

    def commit(self, revision: str) -> str | None:
        commit = {"main": COMMIT, "v1": OLD}.get(revision, revision)
        return commit if commit in self.server.files else None

    @staticmethod
    def entry(name: str, data: Any) -> dict[str, Any]:
        oid = hashlib.sha1(name.encode() + data[:1000]).hexdigest()
        return {"type": "file", "path": name, "size": len(data), "oid": oid}

    def fail(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def reply(self, body: Any, headers: Mapping[str, str] | None = None) -> None:
        asked = self.headers.get("Range") if self.server.ranges else None
        size, start, stop = len(body), 0, len(body)
        if asked:
            first, last = asked.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last or size - 1) + 1, size)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        body = body[start:stop]
        if self.server.cut is not None and len(body) > self.server.cut:
            body, self.server.cut = body[: self.server.cut], None
            self.close_connection = True
        self.server.sent += len(body)
        self.wfile.write(body)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def hub(tmp_path: Path, write: Callable[..., Path], llama: Callable[..., dict[str, Tensor]]) -> Iterator[Hub]:
    """A Hub with one sharded model on its main branch, and an older one, in one file, under the tag v1."""
    server = Hub("org/llama")
    new, old = write(tmp_path / "new", llama(), shards=3), write(tmp_path / "old", llama(seed=1))
    for folder in (new, old):
        for name in ("tokenizer.json", "chat_template.jinja", "modeling_own.py", "pytorch_model.bin"):
            (folder / name).write_text("{}")
    server.files = {COMMIT: contents(new), OLD: contents(old)}
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def ask(
    hub: Hub, home: Path, ref: str, settings: Mapping[str, str] | None = None, load: bool = False, **options: Any
) -> Any:
    """What opening `ref` in a fresh process gives: its facts or the refusal; with `load`, the sum over its first
    tensor or the refusal to load it."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    env = {**plain, "HF_HOME": str(home), "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", **(settings or {})}
    call = [sys.executable, "-P", "-c", SCRIPT, ref, json.dumps(options), "load" if load else ""]
    done = subprocess.run(call, cwd=HOUSE, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()
    return lines[-1] if load or lines[-1].startswith("refused") else json.loads(lines[0])


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        ("org/name", HubName("org/name")),
        ("org/name@v1", HubName("org/name", "v1")),
        ("org/name@refs/pr/1", HubName("org/name", "refs/pr/1")),
        ("org/name@feature/x-1.2+b", HubName("org/name", "feature/x-1.2+b")),
        ("org/name@", None),
        ("org/name@../../../escaped", None),
        ("org/name@a/../../escaped", None),
        ("org/name@/etc/escaped", None),
        ("org/name@a b", None),
        ("org/name@\x1b[1m", None),
        (f"org/name@{'x' * 300}", None),
        ("./name", None),
        ("/abs/name", None),
        ("a/b/c", None),
        ("name", None),
        ("../name", None),
    ],
)
def test_what_can_be_a_name(ref: str, name: HubName | None) -> None:
    assert HubName.of(ref) == name


def test_a_model_is_downloaded_once_into_the_shared_cache(
    hub: Hub, tmp_path: Path, llama: Callable[..., dict[str, Tensor]]
) -> None:
    home = tmp_path / "home"
    facts = ask(hub, home, "org/llama")
    assert facts["path"] == str(home / "hub" / "models--org--llama" / "snapshots" / COMMIT)
    assert (facts["tensors"], facts["commit"]) == (len(llama()), COMMIT)
    assert set(facts["extra"]) == {"config.json", "tokenizer.json", "chat_template.jinja"}
    assert not any("resolve" in request and request.endswith((".py", ".bin")) for request in hub.requests)
    sent = hub.sent
    total = ask(hub, home, "org/llama", load=True)
    assert float(total) == pytest.approx(float(llama()[min(llama())].double().sum()))
    assert hub.sent - sent < 2000
    # Offline, listed, and under its path as a case remembers it, it is the same checkpoint.
    offline = {"HF_HUB_OFFLINE": "1"}
    assert ask(hub, home, "org/llama", offline) == facts
    assert ask(hub, home, "org/llama", offline, headers_only=True)["identity"] == facts["identity"]
    assert ask(hub, home, facts["location"])["identity"] == facts["identity"]
    copy = shutil.copytree(facts["path"], tmp_path / "copy")
    assert ask(hub, home, str(copy))["identity"] == facts["identity"]
    assert ask(hub, tmp_path / "empty", "org/llama", headers_only=True)["identity"].startswith("headers:sha256:")


def test_a_whole_file_wins_over_a_stale_index_as_it_does_on_the_disk(hub: Hub, tmp_path: Path) -> None:
    shards = {name for name in hub.files[COMMIT] if name.startswith("model-")}
    hub.files[COMMIT] = {**hub.files[OLD], **{name: hub.files[COMMIT][name] for name in (INDEX, *shards)}}
    whole = ask(hub, tmp_path / "home", "org/llama@v1")["identity"]
    for options in ({"headers_only": True}, {}):
        found = ask(hub, tmp_path / "home", "org/llama", **options)
        assert any(f"{INDEX} is stale" in note for note in found["notes"])
    assert found["identity"] == whole
    assert not any(request.endswith(tuple(shards)) for request in hub.requests)


def test_licences_and_tokenizers_of_every_kind_come_along_and_code_for_who_allows_it(hub: Hub, tmp_path: Path) -> None:
    names = ["LICENSE", "NOTICE", "USE_POLICY.md", "source.spm", "tekken.json", "vocab.bpe"]
    hub.files[COMMIT] = {**hub.files[COMMIT], **dict.fromkeys(names, b"{}"), "optimizer.pt": b"x"}
    home = tmp_path / "home"
    facts = ask(hub, home, "org/llama")
    assert set(names) <= set(facts["extra"])
    code = Path(facts["path"]) / "modeling_own.py"
    assert not code.exists()
    assert not (Path(facts["path"]) / "optimizer.pt").exists()
    ask(hub, home, "org/llama", code=True)
    assert code.read_text() == "{}"


def test_a_revision_is_another_checkpoint(hub: Hub, tmp_path: Path) -> None:
    new, old = ask(hub, tmp_path / "home", "org/llama"), ask(hub, tmp_path / "home", "org/llama@v1")
    assert (new["commit"], old["commit"]) == (COMMIT, OLD)
    assert new["identity"] != old["identity"]


def test_a_download_that_was_cut_goes_on_where_it_stopped(hub: Hub, tmp_path: Path) -> None:
    header = header_bytes([("model.norm.weight", "F32", (8_000_000,), 32_000_000)], {})
    hub.files[COMMIT] = {"config.json": b"{}", "model.safetensors": Sparse(header, len(header) + 32_000_000)}
    hub.cut = 25_000_000
    found = ask(hub, tmp_path / "home", "org/llama")
    if isinstance(found, str):  # huggingface_hub before 1.20 does not try again by itself
        assert found.endswith("Try again: a download goes on where it stopped.")
        found = ask(hub, tmp_path / "home", "org/llama")
    assert found["tensors"] == 1
    assert hub.sent < 40_000_000


class Sparse:
    """A file of any size that is all zeros behind its beginning, and in no memory."""

    def __init__(self, start: bytes, size: int) -> None:
        self.start, self.size = start, size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, part: slice) -> bytes:
        first, last, _ = part.indices(self.size)
        return self.start[first:last] + bytes(max(0, last - max(first, len(self.start))))


def seven_billion() -> dict[str, Any]:
    """A 7 B Llama in three shards of bfloat16."""
    shapes = {"model.embed_tokens.weight": (32000, 4096), "model.norm.weight": (4096,), "lm_head.weight": (32000, 4096)}
    for layer in range(32):
        stem = f"model.layers.{layer}"
        shapes |= {f"{stem}.self_attn.{part}_proj.weight": (4096, 4096) for part in "qkvo"}
        shapes |= {f"{stem}.mlp.{part}_proj.weight": (11008, 4096) for part in ("gate", "up")}
        shapes[f"{stem}.mlp.down_proj.weight"] = (4096, 11008)
        shapes |= {f"{stem}.{part}_layernorm.weight": (4096,) for part in ("input", "post_attention")}
    files: dict[str, Any] = {"config.json": b"{}"}
    weight_map = {}
    for number in range(3):
        file = f"model-{number + 1:05}-of-00003.safetensors"
        names = list(shapes)[number::3]
        weight_map |= dict.fromkeys(names, file)
        header = header_bytes([(name, "BF16", shapes[name], 2 * math.prod(shapes[name])) for name in names], {})
        files[file] = Sparse(header, len(header) + sum(2 * math.prod(shapes[name]) for name in names))
    return {**files, "model.safetensors.index.json": json.dumps({"weight_map": weight_map}).encode()}


def test_a_listing_asks_for_headers_alone(hub: Hub, tmp_path: Path) -> None:
    hub.files[COMMIT] = seven_billion()
    facts = ask(hub, tmp_path / "home", "org/llama", headers_only=True)
    assert (facts["tensors"], facts["commit"]) == (3 + 32 * 9, COMMIT)
    assert facts["location"] == f"org/llama@{COMMIT}"
    assert facts["shapes"]["lm_head.weight"] == [32000, 4096]
    assert hub.sent < 500_000
    refusal = ask(hub, tmp_path / "home", "org/llama", load=True, headers_only=True)
    assert "was only listed" in refusal
    assert "without headers_only" in refusal


def test_a_long_header_takes_a_second_request(hub: Hub, tmp_path: Path) -> None:
    names = [f"model.layers.{number}.a_rather_long_name.weight" for number in range(2000)]
    whole = header_bytes([(name, "F32", (1,), 4) for name in names], {}) + bytes(8000)
    hub.files[COMMIT] = {"config.json": b"{}", "model.safetensors": whole}
    facts = ask(hub, tmp_path / "home", "org/llama", headers_only=True)
    assert facts["tensors"] == 2000
    assert hub.requests.count(f"GET /org/llama/resolve/{COMMIT}/model.safetensors") == 2


def test_a_listing_never_takes_a_whole_file(hub: Hub, tmp_path: Path) -> None:
    hub.files[COMMIT] = {"config.json": b"{}", "model.safetensors": Sparse(header_bytes([], {}), 1 << 40)}
    assert "belong to no tensor" in ask(hub, tmp_path / "home", "org/llama", headers_only=True)
    hub.ranges = False
    assert "range requests" in ask(hub, tmp_path / "home", "org/llama", headers_only=True)


def test_a_directory_of_that_name_wins(hub: Hub, tmp_path: Path) -> None:
    asked = len(hub.requests)
    assert "not a checkpoint" in ask(hub, tmp_path / "home", "tests/surgery")
    assert len(hub.requests) == asked


def test_a_model_that_cannot_be_had_says_why_and_what_to_do(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert "no such directory, and no such model" in ask(hub, home, "org/other")
    assert "no such revision" in ask(hub, home, "org/llama@v9")
    assert "HF_HUB_OFFLINE is set" in ask(hub, home, "org/llama", {"HF_HUB_OFFLINE": "1"})
    assert "can't be reached" in ask(hub, home, "org/llama", {"HF_ENDPOINT": "http://127.0.0.1:9"})
    hub.token = "hf_secret"
    assert "access is restricted" in ask(hub, home, "org/llama")
    assert ask(hub, home, "org/llama", {"HF_TOKEN": "hf_secret"})["commit"] == COMMIT


def test_pickled_weights_are_fetched_only_when_asked_for(hub: Hub, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    pickled = (tmp_path / "pytorch_model.bin").read_bytes()
    hub.files[COMMIT] = {"config.json": b"{}", "pytorch_model.bin": pickled}
    refusal = ask(hub, tmp_path / "home", "org/llama")
    assert "only pickled weights (pytorch_model.bin)" in refusal
    assert not any("resolve" in request and ".bin" in request for request in hub.requests)
    assert ask(hub, tmp_path / "home", "org/llama", load=True, allow_pickle=True) == "3.0"


def test_weights_trained_beside_an_adapter_are_fetched_with_it(hub: Hub, tmp_path: Path) -> None:
    make = tmp_path / "adapter"
    make.mkdir()
    settings = {"peft_type": "LORA", "lora_alpha": 4, "r": 2}
    (make / "adapter_config.json").write_text(json.dumps(settings))
    factors = {"lora_A": torch.zeros(2, 16), "lora_B": torch.zeros(16, 2)}
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    save_file({f"{stem}.{part}.weight": factor for part, factor in factors.items()}, make / "adapter_model.safetensors")
    torch.save({"base_model.model.model.norm.weight": torch.ones(16)}, make / "non_lora_trainables.bin")
    (make / "optimizer.pt").write_bytes(b"x")
    base = tmp_path / "base"
    base.mkdir()
    for name, data in hub.files[OLD].items():
        (base / name).write_bytes(data)
    hub.files[COMMIT] = contents(make)
    refusal = ask(hub, tmp_path / "home", f"{base}+org/llama")
    assert "non_lora_trainables.bin: weights that were trained beside the adapter, pickled" in refusal
    assert "refused" not in ask(hub, tmp_path / "home", f"{base}+org/llama", load=True, allow_pickle=True)
    assert not any("resolve" in request and "optimizer" in request for request in hub.requests)


@pytest.mark.parametrize("target", ["secret.json", "../blobs-of-others/secret.json"])
def test_a_snapshot_that_leads_out_of_the_cache_is_refused(hub: Hub, tmp_path: Path, target: str) -> None:
    home = tmp_path / "home"
    snapshot = Path(ask(hub, home, "org/llama")["path"])
    outside = tmp_path / target if "/" not in target else snapshot.parent / target
    outside.parent.mkdir(exist_ok=True)
    outside.write_text("{}")
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to(outside)
    for settings in ({}, {"HF_HUB_OFFLINE": "1"}):
        refusal = ask(hub, home, "org/llama", settings)
        assert str(snapshot / "tokenizer.json") in refusal
        assert "leads out of the cache" in refusal


def test_blobs_may_be_on_another_disk(hub: Hub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    facts = ask(hub, home, "org/llama")
    blobs = home / "hub" / "models--org--llama" / "blobs"
    blobs.rename(tmp_path / "disk")
    blobs.symlink_to(tmp_path / "disk")
    found = ask(hub, home, "org/llama", headers_only=True)
    assert not isinstance(found, str), found
    assert found["tensors"] == facts["tensors"]


def test_the_host_keeps_its_own_client() -> None:
    from huggingface_hub.utils import _http

    former = _http._GLOBAL_CLIENT_FACTORY
    with guarded():
        assert _http._GLOBAL_CLIENT_FACTORY is not former
    assert _http._GLOBAL_CLIENT_FACTORY is former
