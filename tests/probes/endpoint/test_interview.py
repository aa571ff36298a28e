"""A served model is asked all prompts, in bounds: what comes is kept, what fails is asked again or told in a line."""

import base64
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlsurgery.probes.endpoint import Endpoint, EndpointError, Interviewed, ServedModel, client, interview, served_names
from vlsurgery.probes.evaluation.completion_store import CompletionStore, asked_digest
from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.harnesses.pictures import data_uri
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.prompts.pictures import noise

HOUSE = Path(__file__).parents[3]
KEY = "sk-secret-0123456789"
PROMPTS = [Prompt(f"p{at}", f"p{at}", "harmful", f"how do i open lock {at}", "report") for at in range(12)]
PICTURED = [
    Prompt(f"v{at}", f"v{at}", "harmful", f"what is {at}", "report", "noise", noise(str(at))) for at in range(3)
]
TOKENS = 8

Server = Any
Reply = Callable[..., Any]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of our own choice are short."""
    monkeypatch.setattr(client, "FIRST_BACKOFF_SECONDS", 0.001)


def served(server: Server, **more: Any) -> ServedModel:
    return ServedModel("tiny", "org/tiny", Endpoint.of(server.url), **more)


def ask(server: Server, prompts: list[Prompt] = PROMPTS, file: Path | None = None, **more: Any) -> Interviewed:
    kept = None if file is None else CompletionFile(file)
    return interview(served(server, **more), prompts, CompletionStore(asked_digest(prompts), TOKENS, kept))


def fault_of(server: Server, prompts: list[Prompt] = PROMPTS) -> str:
    """The line of the error that asking ends with."""
    with pytest.raises(EndpointError) as caught:
        ask(server, prompts)
    line = str(caught.value)
    assert "\n" not in line
    assert server.url in line
    return line


def test_every_prompt_has_its_completion_in_order(model_server: Server) -> None:
    found = ask(model_server, connections=4)
    assert [record.id for record in found.records] == [prompt.id for prompt in PROMPTS]
    assert [record.text for record in found.records] == [f"said {prompt.text}" for prompt in PROMPTS]
    assert {(r.role, r.model, r.tokens, r.cut) for r in found.records} == {("tiny", found.ref.identity, 3, False)}
    assert len(model_server.bodies) == len(PROMPTS)
    assert found.ref.path == f"{model_server.url} org/tiny"


def test_a_request_is_greedy_and_asks_for_no_more_than_a_completion(model_server: Server) -> None:
    ask(model_server, PROMPTS[:1])
    assert model_server.bodies == [
        {
            "model": "org/tiny",
            "messages": [{"role": "user", "content": PROMPTS[0].text}],
            "max_tokens": TOKENS,
            "temperature": 0,
            "seed": 0,
        }
    ]
    ask(model_server, PROMPTS[1:2], thinking=False)
    assert model_server.bodies[1]["chat_template_kwargs"] == {"enable_thinking": False}
    assert not any("Authorization" in headers for _, _, headers, _, _ in model_server.requests)


def test_no_more_requests_at_a_time_than_connections(model_server: Server, completion_reply: Reply) -> None:
    model_server.answer = lambda _: time.sleep(0.02) or completion_reply("yes")
    ask(model_server, connections=3)
    assert model_server.most == 3


def test_pictures_go_along_as_they_are_seen(model_server: Server) -> None:
    found = ask(model_server, [*PROMPTS[:1], *PICTURED])
    assert len(found.records) == 1 + len(PICTURED)
    assert [body["max_tokens"] for body in model_server.bodies] == [TOKENS, 1, 1, *[TOKENS] * len(PICTURED)]
    (picture, text) = model_server.bodies[2]["messages"][0]["content"]
    assert text == {"type": "text", "text": PICTURED[0].text}
    head, _, data = picture["image_url"]["url"].partition(",")
    assert (picture["type"], head) == ("image_url", "data:image/png;base64")
    seen = Image.open(io.BytesIO(base64.b64decode(data)))
    assert np.array_equal(np.asarray(seen), np.asarray(PICTURED[0].image))


SAID_OF_IT = b"a word of the file"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_of_a_picture_its_pixels_alone_are_sent(tmp_path: Path, suffix: str) -> None:
    """The same pixels give the same text, whatever a file says of itself: where it was taken, by whom, with what."""
    plain, exif = Image.new("RGB", (8, 8), (40, 80, 120)), Image.Exif()
    exif[0x010E] = SAID_OF_IT.decode()  # ImageDescription
    file = tmp_path / f"picture.{suffix}"
    plain.save(file, exif=exif, icc_profile=SAID_OF_IT, lossless=True, quality=100, subsampling=0)
    assert SAID_OF_IT in file.read_bytes() or suffix == "png"  # which compresses it
    sent = data_uri(file)
    assert sent == data_uri(Image.open(file).convert("RGB"))
    assert not Image.open(io.BytesIO(base64.b64decode(sent.partition(",")[2]))).info


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "org/tiny is not a multimodal model"),
        (422, "unexpected part"),
        (500, "image input is not supported - you may need to provide the mmproj"),
    ],
)
def test_a_model_that_takes_no_pictures_is_asked_the_rest(
    model_server: Server, server_reply: Reply, completion_reply: Reply, status: int, words: str
) -> None:
    def blind(body: dict[str, Any]) -> Any:
        if isinstance(body["messages"][0]["content"], str):
            return completion_reply("yes")
        return server_reply({"error": {"message": words}}, status)

    model_server.answer = blind
    found = ask(model_server, [*PICTURED, *PROMPTS])
    assert [record.id for record in found.records] == [prompt.id for prompt in PROMPTS]
    assert len(model_server.bodies) == len(PROMPTS) + 2
    (note,) = [note for note in found.notes if "left out" in note]
    assert "3 prompts with pictures" in note
    assert words in note
    assert words in fault_of(model_server, PICTURED)


def test_a_model_that_overlooks_pictures_is_not_said_to_have_seen_them(model_server: Server) -> None:
    model_server.picture_tokens = 0
    found = ask(model_server, [*PICTURED, *PROMPTS])
    assert [record.id for record in found.records] == [prompt.id for prompt in PROMPTS]
    assert any("reads 3 tokens with a picture and 3 without): 3 prompts" in note for note in found.notes)
    assert "all prompts have one" in fault_of(model_server, PICTURED)


def test_where_a_server_does_not_count_it_is_told_that_pictures_may_be_overlooked(model_server: Server) -> None:
    model_server.picture_tokens = None
    found = ask(model_server, [*PICTURED, *PROMPTS])
    assert len(found.records) == len(PICTURED) + len(PROMPTS)
    assert any("isn't known whether it looks at pictures" in note for note in found.notes)


def test_a_request_that_is_refused_is_named(model_server: Server, server_reply: Reply, completion_reply: Reply) -> None:
    def short(body: dict[str, Any]) -> Any:
        if body["messages"][0]["content"] == PROMPTS[7].text:
            return server_reply({"error": {"message": "longer than 4096 tokens"}}, 400)
        return completion_reply("yes")

    model_server.answer = short
    line = fault_of(model_server)
    assert "prompt p7" in line
    assert "longer than 4096 tokens" in line


def test_what_a_providers_filter_turns_away_is_left_out_and_told(
    model_server: Server, server_reply: Reply, completion_reply: Reply
) -> None:
    def filtering(body: dict[str, Any]) -> Any:
        at = body["messages"][0]["content"].rpartition(" ")[2]
        if at in ("0", "5"):
            return server_reply({"error": {"message": "filtered", "code": "content_filter"}}, 400)
        return completion_reply("Fir", 2, "content_filter") if at == "6" else completion_reply("yes")

    model_server.answer = filtering
    found = ask(model_server)
    assert [record.id for record in found.records] == [p.id for p in PROMPTS if p.id not in ("p0", "p5")]
    assert len(model_server.bodies) == len(PROMPTS)
    assert any("turned 2 prompts away" in note for note in found.notes)
    assert any("ended 1 completions" in note for note in found.notes)


def test_settings_that_a_server_does_not_take_are_not_sent_again(
    model_server: Server, server_reply: Reply, completion_reply: Reply
) -> None:
    def strict(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            words = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
            return server_reply({"error": {"message": words, "code": "unsupported_parameter"}}, 400)
        if "seed" in body:
            return server_reply({"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}, 422)
        return completion_reply("yes")

    model_server.answer = strict
    found = ask(model_server)
    assert len(found.records) == len(PROMPTS)
    assert len(model_server.bodies) == len(PROMPTS) + 2
    assert model_server.bodies[-1]["max_completion_tokens"] == TOKENS
    assert any("does not take seed" in note for note in found.notes)


# Faults that go away.


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 529])
def test_a_fault_that_goes_away_is_waited_for(model_server: Server, server_reply: Reply, status: int) -> None:
    model_server.script = [server_reply({"error": "busy"}, status)] * (client.MAX_ATTEMPTS - 1)
    assert [record.text for record in ask(model_server, PROMPTS[:1]).records] == [f"said {PROMPTS[0].text}"]
    assert len(model_server.bodies) == client.MAX_ATTEMPTS


@pytest.mark.parametrize(
    "reply",
    [
        {"body": b'{"choices": [{"message": {"content": "I can', "cut": True},
        {"body": b'{"choices": [{"message": {"content": "I can'},
        {"body": b"<html>bad gateway</html>"},
        {"body": {"choices": [{"message": {"content": "I"}, "finish_reason": "abort"}]}},
    ],
)
def test_a_broken_reply_is_asked_for_again(model_server: Server, server_reply: Reply, reply: dict[str, Any]) -> None:
    model_server.script = [server_reply(**reply)] * 2
    found = ask(model_server)
    assert [record.text for record in found.records] == [f"said {prompt.text}" for prompt in PROMPTS]
    assert len(model_server.bodies) == len(PROMPTS) + 2


def test_the_time_that_a_server_orders_is_waited_by_all(
    model_server: Server, server_reply: Reply, completion_reply: Reply
) -> None:
    model_server.script = [
        completion_reply("yes"),
        server_reply({"error": "slow down"}, 429, {"Retry-After": "0.4"}),
        completion_reply("yes", seconds=0.1),
    ]
    assert len(ask(model_server, connections=2).records) == len(PROMPTS)
    times = [at for method, *_, at in model_server.requests if method == "POST"]
    assert times[2] - times[1] < 0.1  # was on its way already
    assert times[3] - times[1] >= 0.4


def test_a_time_to_wait_is_read_as_seconds_or_a_date() -> None:
    at = datetime.now(UTC) + timedelta(seconds=20)
    assert client._retry_after(format_datetime(at, usegmt=True)) == pytest.approx(20, abs=2)
    assert client._retry_after(format_datetime(at - timedelta(hours=1), usegmt=True)) == 0
    texts = ("7", "0.5", "", "soon", "-3", "nan", "inf", "9" * 40)
    assert [client._retry_after(text) for text in texts] == [7, 0.5, *[None] * 6]
    assert client._retry_after(f"Mon, 01 Jan 2026 00:00:00 +{'9' * 13}") is None
    assert client._retry_after(f"{'9' * 17} Jan 2026 00:00") is None


def test_a_rate_limit_that_lets_some_through_is_no_end(
    model_server: Server, server_reply: Reply, completion_reply: Reply
) -> None:
    """Requests are turned away far more often than a fault may come, and all are answered."""

    def limited(body: dict[str, Any]) -> Any:
        turn = len(model_server.bodies) % 4 == 0
        return completion_reply("yes") if turn else server_reply({"error": "slow down"}, 429)

    model_server.answer = limited
    model_server.script = [completion_reply("yes")]
    assert len(ask(model_server, connections=8).records) == len(PROMPTS)


# Faults that stay.


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({"body": {"error": "slow down"}, "status": 429}, "later, or with fewer --connections"),
        ({"body": {"error": "broken"}, "status": 500}, "500: broken"),
        ({"body": b"{", "cut": True}, "the connection failed"),
        ({"body": b"<html>"}, "no completion"),
        ({"body": {"error": "slow down"}, "status": 429, "headers": {"Retry-After": "86400"}}, "for 86400 seconds"),
        ({"body": {"error": {"message": "no credit", "code": "insufficient_quota"}}, "status": 429}, "no credit"),
        ({"body": {"error": {"message": "pay"}}, "status": 402}, "402: pay"),
        ({"body": b"", "status": 403}, "does not take the key"),
        ({"body": b"x" * (1 << 17)}, "more than 65536 bytes"),
        ({"drip": True}, "no whole reply in 0 seconds"),
        ({"body": b"{}", "headers": {"Content-Encoding": "gzip"}}, "compressed (gzip)"),
        ({"status": 307, "headers": {"Location": "/v2/chat/completions"}}, "sends on to /v2/chat/completions"),
    ],
)
def test_a_fault_that_stays_ends_in_one_line(
    model_server: Server, server_reply: Reply, monkeypatch: pytest.MonkeyPatch, reply: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr(client, "MAX_REPLY_BYTES", 1 << 16)
    if reply.get("drip"):
        monkeypatch.setattr(client, "QUEUE_SECONDS", 0.1)
        monkeypatch.setattr(client, "SECONDS_A_TOKEN", 0.0)
    model_server.answer = lambda _: server_reply(**reply)
    assert words in fault_of(model_server)
    assert len(model_server.bodies) <= client.MAX_ATTEMPTS


def test_a_server_that_is_silent_is_not_waited_for_without_end(
    model_server: Server, server_reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "QUEUE_SECONDS", 0.1)
    monkeypatch.setattr(client, "SECONDS_A_TOKEN", 0.0)
    model_server.script = [server_reply(seconds=0.3)]
    assert len(ask(model_server, PROMPTS[:2]).records) == 2
    assert len(model_server.bodies) == 3


def test_nothing_at_the_address_is_told_at_once(model_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def waiting(seconds: float) -> None:
        raise AssertionError(f"waits {seconds} s for another attempt")

    monkeypatch.setattr(client.asyncio, "sleep", waiting)
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        model_server.url = f"http://127.0.0.1:{place.getsockname()[1]}/v1"
        assert "nothing answers there" in fault_of(model_server)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTP_PROXY", "socks4://me:secret@proxy"),
        ("all_proxy", "http://me:secret@[::1"),
        ("NO_PROXY", "[::1"),
        ("SSL_CERT_FILE", "/secret/nowhere.pem"),
    ],
)
def test_a_proxy_or_certificates_that_can_not_be_used_are_named_by_their_variable(
    model_server: Server, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    for each in client.ENVIRONMENT:
        monkeypatch.delenv(each, raising=False)
        monkeypatch.delenv(each.lower(), raising=False)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(client, "_trusted", client._trusted.__wrapped__)
    line = fault_of(model_server)
    assert f"unset {name}." in line
    assert "secret" not in line
    assert not model_server.requests


def test_an_unknown_model_is_told_with_those_that_there_are(model_server: Server, server_reply: Reply) -> None:
    model_server.models = server_reply({"data": [{"id": "one"}, {"id": "two\x1b[2J"}]})
    model_server.answer = lambda _: server_reply({"error": {"message": "does not exist"}}, 404)
    assert "no model org/tiny there (404: does not exist). It serves: one, two\\x1b[2J." in fault_of(model_server)
    assert served_names(Endpoint.of(model_server.url)) == ["one", "two\x1b[2J"]


@pytest.mark.parametrize("status", [404, 405, 403, 500, 200])
def test_a_server_that_lists_no_models_is_asked_all_the_same(
    model_server: Server, server_reply: Reply, status: int
) -> None:
    model_server.models = server_reply(b"<html>", status)
    assert len(ask(model_server).records) == len(PROMPTS)


def test_no_other_server_is_asked_and_none_gets_the_key(
    model_server: Server, server_reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.05)
        place = f"http://127.0.0.1:{other.getsockname()[1]}/v1/chat/completions"
        model_server.answer = lambda _: server_reply(status=308, headers={"Location": place})
        assert f"sends on to {place}, which is not followed" in fault_of(model_server)
        model_server.models = server_reply(status=302, headers={"Location": place})
        assert "not followed" in fault_of(model_server)
        with pytest.raises(TimeoutError):
            other.accept()


# The key.


def test_the_key_goes_to_the_server_and_into_no_message_file_or_completion(
    model_server: Server,
    server_reply: Reply,
    completion_reply: Reply,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    model_server.answer = lambda _: completion_reply(f"your key is {KEY}", reasoning=f"{KEY} it is")
    found = ask(model_server, file=tmp_path / "said.jsonl")
    assert {headers["Authorization"] for _, _, headers, _, _ in model_server.requests} == {f"Bearer {KEY}"}
    assert "your key is [OPENAI_API_KEY]" in found.records[0].text
    assert KEY not in (tmp_path / "said.jsonl").read_text()
    for status in (400, 401, 404, 429, 302):
        told = server_reply({"error": {"message": f"wrong: {KEY}", "code": KEY}}, status, {"Location": f"/{KEY}"})
        model_server.answer = lambda _, told=told: told
        model_server.models = server_reply({"data": [{"id": KEY}]})
        assert KEY not in fault_of(model_server)
    model_server.answer = lambda _: server_reply({"choices": [{"message": {"content": {KEY: KEY}}}]})
    assert KEY not in fault_of(model_server)
    for letters in range(270, 300):  # where a long message is cut off, the key may stand in the middle
        told = server_reply({"error": {"message": f"{'x' * letters} {KEY}"}}, 400)
        model_server.answer = lambda _, told=told: told
        assert "sk-sec" not in fault_of(model_server)
    model_server.models = server_reply({"error": {"message": f"wrong: {KEY}"}}, 401)
    assert "put the right one into OPENAI_API_KEY" in (line := fault_of(model_server))
    assert KEY not in line
    assert KEY not in "".join(capfd.readouterr())


def test_a_server_that_wants_a_key_says_where_to_put_it(model_server: Server, server_reply: Reply) -> None:
    model_server.models = server_reply({"error": "Unauthorized"}, 401)
    assert "put a key into OPENAI_API_KEY, or name its variable with --api-key-env" in fault_of(model_server)


# Going on.


def test_only_what_is_missing_is_asked_again(model_server: Server, tmp_path: Path) -> None:
    file = tmp_path / "said.jsonl"
    whole = ask(model_server, file=file)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:5]) + lines[5][:30])
    model_server.requests.clear()
    again = ask(model_server, file=file)
    assert again.records == whole.records
    assert len(model_server.bodies) == len(PROMPTS) - 5
    assert any("5 of 12 completions were there already" in note for note in again.notes)
    assert not any("already" in note for note in whole.notes)


@pytest.mark.parametrize("change", ["url", "name", "root"])
def test_another_model_is_asked_anew(model_server: Server, server_reply: Reply, tmp_path: Path, change: str) -> None:
    file = tmp_path / "said.jsonl"
    ask(model_server, file=file)
    store = CompletionStore(asked_digest(PROMPTS), TOKENS, CompletionFile(file))
    named = served(model_server)
    if change == "url":
        named = ServedModel("tiny", "org/tiny", Endpoint.of(model_server.url + "/lora"))
    elif change == "name":
        named = ServedModel("tiny", "org/tiny-2", Endpoint.of(model_server.url))
    else:
        model_server.models = server_reply({"data": [{"id": "org/tiny", "root": "/models/other"}]})
    interview(named, PROMPTS, store)
    assert len(model_server.bodies) == 2 * len(PROMPTS)


def test_what_came_before_a_fault_is_kept(
    model_server: Server, server_reply: Reply, completion_reply: Reply, tmp_path: Path
) -> None:
    def breaking(body: dict[str, Any]) -> Any:
        if body["messages"][0]["content"] == PROMPTS[6].text:
            return server_reply({"error": {"message": "too long"}}, 400)
        return completion_reply("yes")

    model_server.answer = breaking
    with pytest.raises(EndpointError, match="prompt p6"):
        ask(model_server, file=tmp_path / "said.jsonl", connections=1)
    assert [record.id for record in CompletionFile(tmp_path / "said.jsonl").read()] == [f"p{at}" for at in range(6)]


SCRIPT = """
import sys
from pathlib import Path
from vlsurgery.probes.endpoint import Endpoint, ServedModel, interview
from vlsurgery.probes.evaluation.completion_store import CompletionStore
from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.prompts import Prompt
prompts = [Prompt(f"p{at}", f"p{at}", "harmful", f"how do i open lock {at}", "report") for at in range(12)]
store = CompletionStore("digest", 8, CompletionFile(Path(sys.argv[2])))
model = ServedModel("tiny", "org/tiny", Endpoint.of(sys.argv[1]), connections=2)
print(*(record.text for record in interview(model, prompts, store).records), sep="\\n")
print("torch" in sys.modules)
"""


@pytest.fixture
def start(model_server: Server, tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Starts an interview in a process of its own."""
    running: list[subprocess.Popen[str]] = []

    def started() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", SCRIPT, model_server.url, str(tmp_path / "said.jsonl")]
        made = subprocess.Popen(command, cwd=HOUSE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(made)
        return made

    yield started
    for each in running:
        each.kill()
        each.communicate()


def test_an_interview_that_is_killed_goes_on(
    model_server: Server, start: Callable[[], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    """The next one has all, asks only what is missing, and loads no torch."""
    answer = model_server.answer
    model_server.answer = lambda body: time.sleep(0.1) or answer(body)
    process = start()
    while len(model_server.bodies) < 6:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    kept = [record.id for record in CompletionFile(tmp_path / "said.jsonl").read()]
    assert len(kept) >= 3
    model_server.answer = answer
    model_server.requests.clear()
    out, err = start().communicate(timeout=60)
    assert err == ""
    assert out.splitlines() == [*(f"said {prompt.text}" for prompt in PROMPTS), "False"]
    assert len(model_server.bodies) == len(PROMPTS) - len(kept)


def test_an_interview_that_is_interrupted_ends_at_once_and_keeps_what_came(
    model_server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    answer, first, ended = model_server.answer, threading.Lock(), threading.Event()
    waited: list[bool] = []

    def interrupting(body: dict[str, Any]) -> Any:
        if len(model_server.bodies) >= 6:
            if first.acquire(blocking=False):
                os.kill(os.getpid(), signal.SIGINT)
            waited.append(ended.wait(30))
        return answer(body)

    model_server.answer = interrupting
    with pytest.raises(KeyboardInterrupt):
        ask(model_server, file=tmp_path / "said.jsonl", connections=2)
    assert not waited  # it did not wait for what was on its way
    ended.set()
    assert len(CompletionFile(tmp_path / "said.jsonl").read()) >= 4
    assert capfd.readouterr().err == ""
