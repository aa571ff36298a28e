"""`vlsurgery push` against a Hub on this machine: what leaves, what stays, what is said, and what is refused."""

import base64
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml
from huggingface_hub import ModelCard, constants
from typer.testing import Result

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.merge.recipe import Recipe

Run = Callable[..., Result]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_" + "s3cret" * 6
REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "First gather the {topic}, then put the parts together in the order of the plan and check each of them."


class UploadHub(ThreadingHTTPServer):
    """The few endpoints of a Hub that uploads use.

    models: name -> branch -> file -> content. private: names. stored: SHA-256 -> content of large files.
    asked: method and path of every request. failing: path's end -> status that it is answered with, once.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), UploadHandler)
        self.models: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.stored: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.failing: dict[str, int] = {}
        self.ignored: set[str] = set()
        self.commits = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def puts(self) -> int:
        return sum(line.startswith("PUT") for line in self.asked)


class UploadHandler(BaseHTTPRequestHandler):
    server: UploadHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def reply(self, value: Any, status: int = 200, code: str | None = None) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handled(self) -> Any:
        """The body of a request that is to be answered; None where it was refused."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        self.server.asked.append(f"{self.command} {path}")
        status = next((status for end, status in self.server.failing.items() if re.search(end, path)), None)
        if status is None and self.headers.get("Authorization") != f"Bearer {TOKEN}" and not path.startswith("/lfs/"):
            status = 401
        if status is not None:
            self.reply({"error": "no"}, status)
            return None
        return path, body

    def do_GET(self) -> None:
        if (found := self.handled()) is None:
            return None
        name, _, revision = found[0].removeprefix("/api/models/").partition("/revision/")
        branches = self.server.models.get(name)
        if branches is None:
            return self.reply({"error": "none"}, 404, "RepoNotFound")
        files = branches[unquote(revision) or "main"]
        siblings = [self.entry(file, content) for file, content in files.items()]
        reply = {"id": name, "sha": COMMIT, "private": name in self.server.private, "siblings": siblings}
        return self.reply(reply)

    @staticmethod
    def entry(file: str, content: bytes) -> dict[str, Any]:
        large = {"lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}}
        return {"rfilename": file, "size": len(content), **(large if file.endswith(".safetensors") else {})}

    def do_PUT(self) -> None:
        if (found := self.handled()) is not None:
            self.server.stored[found[0].removeprefix("/lfs/")] = found[1]
            self.reply({})

    def do_POST(self) -> None:
        if (found := self.handled()) is None:
            return None
        path, body = found
        hub = self.server
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            hub.models[name] = {"main": {".gitattributes": b""}}
            if asked.get("visibility") == "private" or asked.get("private"):
                hub.private.add(name)
            return self.reply({"url": f"{hub.url}/{name}"})
        if path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        if path.endswith("/info/lfs/objects/batch"):
            return self.reply({"transfer": "basic", "objects": list(map(self.action, json.loads(body)["objects"]))})
        name, action, revision = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(\w+)/(.+)", path).groups()
        branches = hub.models[name]
        if action == "branch":
            branches[unquote(revision)] = dict(branches["main"])
            return self.reply({})
        if action == "preupload":
            files = [file["path"] for file in json.loads(body)["files"]]
            return self.reply({"files": list(map(self.mode, files))})
        files = branches[unquote(revision)]
        if "create_pr" in parse_qs(urlsplit(self.path).query):
            files = branches["refs/pr/1"] = dict(files)
        hub.commits += 1
        for line in body.splitlines():
            self.put(files, json.loads(line))
        branches[COMMIT] = files
        pull = {"pullRequestUrl": f"{hub.url}/{name}/discussions/1"} if files is branches.get("refs/pr/1") else {}
        return self.reply({"commitUrl": f"{hub.url}/{name}/commit/{COMMIT}", "commitOid": COMMIT, **pull})

    def mode(self, file: str) -> dict[str, Any]:
        large = file.endswith(".safetensors")
        ignored = file in self.server.ignored
        return {"path": file, "uploadMode": "lfs" if large else "regular", "shouldIgnore": ignored, "oid": None}

    def action(self, asked: dict[str, Any]) -> dict[str, Any]:
        upload = {"upload": {"href": f"{self.server.url}/lfs/{asked['oid']}"}}
        return {**asked, **({} if asked["oid"] in self.server.stored else {"actions": upload})}

    def put(self, files: dict[str, bytes], operation: dict[str, Any]) -> None:
        value = operation["value"]
        if operation["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif operation["key"] == "lfsFile":
            files[value["path"]] = self.server.stored[value["oid"]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[UploadHub]:
    server = UploadHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def merged(run: Run, trio: dict[str, Path], tmp_path: Path) -> Path:
    """A merge of an adapted model in the Hub's cache with a local one; both cards state one licence."""
    cached = tmp_path / "models--vl--llava" / "snapshots" / COMMIT
    shutil.copytree(trio["adapted"], cached)
    for parent in (cached, trio["safety"]):
        (parent / "README.md").write_text("---\nlicense: apache-2.0\nlanguage: en\n---\n# A model\n")
    config = json.loads((cached / "config.json").read_text())
    config |= {"_name_or_path": str(trio["base"]), "text_config": {"_name_or_path": "vl/llama"}}
    (cached / "config.json").write_text(json.dumps(config))
    made = run("merge", "--method", "linear", cached, trio["safety"], "--weight", "0.7", "--weight", "0.3", "-o", "out")
    assert made.exit_code == 0, made.stderr
    return Path("out").absolute()


@pytest.fixture
def measured(evaluate_by_hand: Callable[..., Any]) -> Callable[..., Path]:
    """A function that evaluates a merge by hand, in a case: whether it refuses what is harmful, and adapted does. Only
    adapted refuses what is harmless, which is no refusal that one would miss."""

    def make(merge: Path, refuses: bool, adapted_refuses: bool = False, requests: int = 40) -> Path:
        said = {
            "adapted": {"harmful": REFUSAL if adapted_refuses else ANSWER, "harmless": REFUSAL},
            "merged": {"harmful": REFUSAL if refuses else ANSWER, "harmless": ANSWER},
        }
        case = evaluate_by_hand(said, requests).folder
        behaviour = json.loads((case / "behaviour.json").read_text())
        behaviour["settings"]["merged"] = Checkpoint.open(merge).identity
        (case / "behaviour.json").write_text(json.dumps(behaviour))
        return case

    return make


def front_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_without_publish_nothing_is_asked_of_the_hub_and_all_is_told(hub: UploadHub, run: Run, merged: Path) -> None:
    (merged / "notes.txt").write_text("mine")
    done = run("push", merged, "me/safe-llava")
    assert done.exit_code == 0, done.stderr
    assert not hub.asked
    for name, content in files_of(merged).items():
        assert (f"  {name} " in done.stdout) == (name != "notes.txt"), (name, len(content))
    assert "Left here, the merge did not write them: notes.txt" in done.stdout
    assert "behaviour: not measured" in done.stdout
    assert "base_model_relation: merge" in done.stdout
    assert "Add --publish" in done.stdout
    assert run("push", merged, "me/safe-llava", "--publish", "--plan").exit_code == 0
    assert not hub.asked


def test_what_arrives_is_the_merge_under_a_card_without_places_of_this_machine(
    hub: UploadHub, run: Run, merged: Path, tmp_path: Path
) -> None:
    (merged / "notes.txt").write_text("mine")
    done = run("push", merged, "me/safe-llava", "--publish", "--json")
    assert done.exit_code == 0, done.stderr
    arrived = hub.models["me/safe-llava"]["main"]
    here = files_of(merged)
    assert arrived.keys() == (here.keys() - {"notes.txt"}) | {".gitattributes"}
    same = {name for name in here if here[name] == arrived.get(name)}
    assert here.keys() - same == {"README.md", "recipe.yaml", "config.json", "SHA256SUMS", "notes.txt"}
    for name, content in arrived.items():
        assert str(tmp_path).encode() not in content, name
        assert TOKEN.encode() not in content, name
    listed = dict(reversed(line.split("  ")) for line in arrived["SHA256SUMS"].decode().splitlines())
    assert listed == {name: hashlib.sha256(arrived[name]).hexdigest() for name in listed}
    assert listed.keys() | {"SHA256SUMS", ".gitattributes"} == arrived.keys()
    assert json.loads(arrived["config.json"])["text_config"] == {"_name_or_path": "vl/llama"}
    assert "_name_or_path" not in json.loads(arrived["config.json"])
    front = front_of(arrived["README.md"].decode())
    assert front["base_model"] == ["vl/llava"]
    assert (front["base_model_relation"], front["license"]) == ("merge", "apache-2.0")
    said = json.loads(done.stdout)
    assert said["published"]["commit"] == COMMIT
    assert said["card"] == arrived["README.md"].decode()
    assert said["left_out"] == ["notes.txt"]
    assert {each["name"]: each["sha256"] for each in said["files"]}.items() >= listed.items()


def test_the_recipe_that_arrives_gives_the_same_bytes_again(
    hub: UploadHub, run: Run, merged: Path, tmp_path: Path, trio: dict[str, Path]
) -> None:
    """A stranger has the Hub's model at its commit, and puts a copy of the other parent where its role says."""
    assert run("push", merged, "me/safe-llava", "--publish").exit_code == 0
    text = hub.models["me/safe-llava"]["main"]["recipe.yaml"].decode()
    before, after = Recipe.load(merged / "recipe.yaml"), yaml.safe_load(text)
    (named,) = (role for role, ref in after["checkpoints"].items() if ref["path"] == f"vl/llava@{COMMIT}")
    (other,) = after["checkpoints"].keys() - {named}
    assert after["checkpoints"][other]["path"] == other
    assert {role: ref["identity"] for role, ref in after["checkpoints"].items()} == {
        role: ref.identity for role, ref in before.checkpoints.items()
    }
    trio["safety"].rename(other)
    cached = tmp_path / "models--vl--llava" / "snapshots" / COMMIT
    Path("theirs.yaml").write_text(text.replace(f"vl/llava@{COMMIT}", str(cached)))
    assert run("merge", "--recipe", "theirs.yaml", "-o", "again").exit_code == 0
    assert Path("again/model.safetensors").read_bytes() == (merged / "model.safetensors").read_bytes()


def test_rates_are_told_with_intervals_and_the_hub_can_read_them(
    hub: UploadHub, run: Run, merged: Path, measured: Callable[..., Path]
) -> None:
    case = measured(merged, refuses=True)
    done = run("push", merged, "me/safe-llava", "--case", case, "--json")
    card = json.loads(done.stdout)["card"]
    # The Hub's own reader is the oracle.
    found = ModelCard(card, ignore_metadata_errors=False).data.eval_results
    rates = {(each.dataset_type, each.metric_type): each for each in found}
    assert rates["harmful", "refused"].metric_value == 1.0
    assert rates["harmless", "refused"].metric_value == 0.0
    assert "91–100%, 40 requests" in rates["harmful", "refused"].metric_name
    assert "+100.0 points" in card
    assert "fewer harmful" not in card + done.stderr
    behaviour = json.loads((case / "behaviour.json").read_text())
    behaviour["judges"][0]["name"] = "hf:/data/people/mine"
    (case / "behaviour.json").write_text(json.dumps(behaviour))
    card = json.loads(run("push", merged, "me/safe-llava", "--case", case, "--json").stdout)["card"]
    assert "judged by a judge called mine on" in card
    assert "/data" not in card
    behaviour["settings"]["prompts"] = {"files": 3}
    (case / "behaviour.json").write_text(json.dumps(behaviour))
    done = run("push", merged, "me/safe-llava", "--case", case)
    assert (done.exit_code, "prompts.files" in done.stderr) == (2, True)


def test_a_merge_that_was_shown_to_refuse_less_is_kept_back(
    hub: UploadHub, run: Run, merged: Path, measured: Callable[..., Path]
) -> None:
    case = measured(merged, refuses=False, adapted_refuses=True)
    refused = run("push", merged, "me/less", "--case", case, "--publish")
    assert refused.exit_code == 3
    assert "--allow-fewer-refusals" in refused.stderr
    assert "−100.0 points" in refused.stderr
    assert not hub.asked
    done = run("push", merged, "me/less", "--case", case, "--publish", "--allow-fewer-refusals")
    assert done.exit_code == 0, done.stderr
    assert "refuses fewer harmful requests" in done.stderr
    assert b"**It refuses fewer harmful requests" in hub.models["me/less"]["main"]["README.md"]


def test_fewer_refusals_within_the_interval_are_told_and_no_reason_to_keep_it_back(
    hub: UploadHub, run: Run, merged: Path, measured: Callable[..., Path]
) -> None:
    case = measured(merged, refuses=False, adapted_refuses=True, requests=2)
    done = run("push", merged, "me/less", "--case", case)
    assert done.exit_code == 0, done.stderr
    assert "refuses fewer harmful requests than adapted, which the card says" in done.stdout
    assert "**It refuses fewer harmful requests" in done.stdout


def test_an_evaluation_of_another_merge_is_not_told(
    hub: UploadHub, run: Run, merged: Path, measured: Callable[..., Path]
) -> None:
    case = measured(merged, refuses=True)
    behaviour = json.loads((case / "behaviour.json").read_text())
    behaviour["settings"]["merged"] = "sha256:" + "0" * 64
    (case / "behaviour.json").write_text(json.dumps(behaviour))
    done = run("push", merged, "me/safe-llava", "--case", case)
    assert "is not of this merge" in done.stdout
    assert "model-index" not in done.stdout


def test_an_interrupted_push_goes_on_and_sends_large_files_once(hub: UploadHub, run: Run, merged: Path) -> None:
    hub.failing = {"/commit/": 500}
    failed = run("push", merged, "me/safe-llava", "--publish")
    assert failed.exit_code == 2
    assert "500" in failed.stderr
    assert "not sent a second time" in failed.stderr
    assert (hub.puts, hub.commits) == (1, 0)
    hub.failing = {}
    assert run("push", merged, "me/safe-llava", "--publish").exit_code == 0
    assert (hub.puts, hub.commits) == (1, 1)
    assert hub.models["me/safe-llava"]["main"]["model.safetensors"] == (merged / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/api/models/", 401, "the token is not valid"),
        ("/api/repos/create", 403, "may not write there"),
        ("/api/repos/create", 404, "no such organisation"),
        ("/api/repos/create", 409, "the name is taken"),
        ("/commit/", 413, "larger than it takes"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_line_without_the_token(
    hub: UploadHub, run: Run, merged: Path, path: str, status: int, words: str
) -> None:
    hub.failing = {path: status}
    done = run("push", merged, "me/safe-llava", "--publish", "--quiet")
    assert done.exit_code == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: me/safe-llava: ")
    assert words in line
    assert TOKEN not in done.stdout + done.stderr


def test_without_a_token_nothing_is_asked(
    hub: UploadHub, run: Run, merged: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    done = run("push", merged, "me/safe-llava", "--publish")
    assert (done.exit_code, hub.asked) == (2, [])
    assert "no token. Log in (`hf auth login`) or set HF_TOKEN" in done.stderr


def test_a_model_that_holds_something_else_or_is_public_is_left_alone(hub: UploadHub, run: Run, merged: Path) -> None:
    hub.models["me/taken"] = {"main": {".gitattributes": b"", "train.py": b"", "model.safetensors": b""}}
    done = run("push", merged, "me/taken", "--publish")
    assert done.exit_code == 2
    assert "the model holds train.py, which this merge does not have" in done.stderr
    hub.models["me/public"] = {"main": {".gitattributes": b""}}
    done = run("push", merged, "me/public", "--publish", "--private")
    assert done.exit_code == 2
    assert "is there already, and public" in done.stderr
    assert not any(line.startswith(("POST", "PUT")) for line in hub.asked)
    assert run("push", merged, "me/new", "--publish", "--private").exit_code == 0
    assert hub.private == {"me/new"}


def test_a_branch_and_a_pull_request_leave_the_main_branch_alone(hub: UploadHub, run: Run, merged: Path) -> None:
    hub.models["me/safe-llava"] = {"main": {".gitattributes": b""}}
    assert run("push", merged, "me/safe-llava", "--publish", "--revision", "v2").exit_code == 0
    done = run("push", merged, "me/safe-llava", "--publish", "--create-pr")
    assert done.stdout.splitlines()[-1].endswith("/discussions/1")
    branches = hub.models["me/safe-llava"]
    assert branches["main"] == {".gitattributes": b""}
    assert branches["v2"].keys() == branches["refs/pr/1"].keys() > {"model.safetensors"}
    assert run("push", merged, "me/other", "--publish", "--create-pr").exit_code == 2


def test_a_file_that_the_hub_left_out_is_said(hub: UploadHub, run: Run, merged: Path) -> None:
    hub.ignored = {"recipe.yaml"}
    done = run("push", merged, "me/safe-llava", "--publish")
    assert done.exit_code == 2
    assert "after the push, recipe.yaml is absent there" in done.stderr


def test_a_changed_file_and_a_directory_that_is_no_merge_are_refused(
    hub: UploadHub, run: Run, merged: Path, trio: dict[str, Path], flip: Callable[[Path, int], None]
) -> None:
    assert "no SHA256SUMS in it" in run("push", trio["base"], "me/x", "--publish").stderr
    assert "no such directory" in run("push", "nowhere", "me/x").stderr
    assert "no name of the Hub" in run("push", merged, "x", "--publish").stderr
    flip(merged / "model.safetensors", (merged / "model.safetensors").stat().st_size - 1)
    done = run("push", merged, "me/x", "--publish")
    assert done.exit_code == 2
    assert "model.safetensors (other bytes than were written)" in done.stderr
    assert not hub.asked


def test_a_parent_in_a_directory_has_its_name_on_the_hub_where_the_hashes_agree(
    hub: UploadHub, run: Run, merged: Path, trio: dict[str, Path]
) -> None:
    weights = (trio["safety"] / "model.safetensors").read_bytes()
    hub.models["vl/safe"] = {"main": {"model.safetensors": weights}, "old": {"model.safetensors": weights[:-1]}}
    done = run("push", merged, "me/x", "--parent", "safety=vl/safe", "--json")
    assert done.exit_code == 0, done.stderr
    card = json.loads(done.stdout)["card"]
    assert front_of(card)["base_model"] == ["vl/llava", "vl/safe"]
    assert f"`vl/safe@{COMMIT}`" in card
    other = run("push", merged, "me/x", "--parent", "safety=vl/safe@old")
    assert other.exit_code == 2
    assert "model.safetensors is not there, or has other bytes there" in other.stderr
    for wrong in ("safety", "nobody=vl/safe", f"{COMMIT}=vl/safe", "safety=safe"):
        assert "--parent" in run("push", merged, "me/x", "--parent", wrong).stderr


SECRET = "only-the-environment-knows-me"


@pytest.mark.parametrize(
    "word",
    ["PLACE", "hf_" + "A1" * 12, TOKEN, "github_pat_" + "A1_" * 12, "-----BEGIN RSA PRIVATE KEY-----", SECRET],
)
def test_a_parents_file_that_names_this_machine_or_holds_a_token_is_not_sent(
    hub: UploadHub, run: Run, trio: dict[str, Path], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", SECRET)
    secret = str(trio["base"].parent / "safety") if word == "PLACE" else word
    (trio["adapted"] / "chat_template.jinja").write_text(f"{{# {secret} #}}")
    assert run("merge", "--method", "linear", trio["adapted"], trio["safety"], "-o", "out").exit_code == 0
    done = run("push", "out", "me/x", "--publish")
    assert done.exit_code == 2
    assert "chat_template.jinja" in done.stderr
    assert "Nothing was sent" in done.stderr
    assert not hub.asked
    assert word == "PLACE" or word not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("license: llama3\n", "the parents' cards differ ("),
        ("language: en\n", "states none"),
        ("license: [unclosed\n", "metadata can't be read"),
        (None, "has no card"),
    ],
)
def test_a_licence_is_taken_over_only_where_all_cards_agree(
    hub: UploadHub, run: Run, merged: Path, trio: dict[str, Path], second: str | None, said: str
) -> None:
    card = trio["safety"] / "README.md"
    card.unlink()
    if second is not None:
        card.write_text(f"---\n{second}---\n")
    done = run("push", merged, "me/x")
    assert said in done.stdout
    assert "license:" not in done.stdout
