"""What all tests share: patience with a busy machine, tiny checkpoints by hand or from real classes, and servers."""

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import save_file
from torch import Tensor

# None fails because the machine was busy, or because drawing its inputs took long.
settings.register_profile(
    "unhurried",
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("unhurried")

# For `make bench`: --hypothesis-profile thorough, or large.
settings.register_profile("thorough", settings.get_profile("unhurried"), max_examples=500)
settings.register_profile("large", settings.get_profile("unhurried"), max_examples=5000)

# Tests, and commands that they start, run side by side: threads that wait for a busy core cost more than they bring.
torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests that are begun in the background are made to ignore SIGINT, and by nohup SIGHUP, and would pass that on to the
# commands they start.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

HIDDEN, LAYERS, VOCAB = 16, 2, 40
CONFIG = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCAB,
    "tie_word_embeddings": False,
}

Write = Callable[..., Path]


LONGEST = ("test_demo.py", "test_kill.py", "test_at_once.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no process is left with one of them when the others have done the rest."""
    last = len(LONGEST)
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else last)


def write_checkpoint(
    path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, object] = CONFIG, shards: int = 1
) -> Path:
    """A checkpoint directory in one file or in several with an index, tensors dealt out in turn."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(dict(tensors), path / "model.safetensors", metadata={"format": "pt"})
        return path
    weight_map = {name: f"model-{1 + i % shards:05}-of-{shards:05}.safetensors" for i, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        part = {name: tensor for name, tensor in tensors.items() if weight_map[name] == file}
        save_file(part, path / file, metadata={"format": "pt"})
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return path


def llama_tensors(
    seed: int = 0, vocab: int = VOCAB, layers: int = LAYERS, dtype: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """The tensors of a small Llama by their native names, no two of them alike."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (vocab, HIDDEN),
    }
    for layer in range(layers):
        for part in ("q", "k", "v", "o"):
            shapes[f"model.layers.{layer}.self_attn.{part}_proj.weight"] = (HIDDEN, HIDDEN)
        shapes[f"model.layers.{layer}.mlp.gate_proj.weight"] = (24, HIDDEN)
        shapes[f"model.layers.{layer}.mlp.up_proj.weight"] = (24, HIDDEN)
        shapes[f"model.layers.{layer}.mlp.down_proj.weight"] = (HIDDEN, 24)
        shapes[f"model.layers.{layer}.input_layernorm.weight"] = (HIDDEN,)
        shapes[f"model.layers.{layer}.post_attention_layernorm.weight"] = (HIDDEN,)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in shapes.items()}


@pytest.fixture(scope="session")
def write() -> Write:
    return write_checkpoint


@pytest.fixture(scope="session")
def flip() -> Callable[[Path, int], None]:
    """A function that changes one byte of a file and puts back the modification time that it had."""

    def at_place(file: Path, place: int) -> None:
        before = file.stat()
        with file.open("r+b") as stream:
            stream.seek(place)
            byte = stream.read(1)[0]
            stream.seek(place)
            stream.write(bytes([byte ^ 1]))
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    return at_place


@pytest.fixture(scope="session")
def llama() -> Callable[..., dict[str, Tensor]]:
    return llama_tensors


@dataclass(frozen=True)
class Trio:
    """A base Llama, a LLaVA on it, and a safety-tuned LLaVA, in every layout that transformers writes.

    deltas: native name of a text tensor in the LLaVA -> its VL delta; each has a size of its own.
    """

    base: Path
    base_sharded: Path
    adapted: Path
    adapted_native: Path
    adapted_sharded: Path
    safety: Path
    safety_native: Path
    deltas: dict[str, Tensor]


@pytest.fixture(scope="session")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Trio:
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlamaForCausalLM,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    root = tmp_path_factory.mktemp("trio")
    torch.manual_seed(0)
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    text = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=VOCAB)
    # Vision is as deep and as wide as the text, so that only the vocabulary's table tells them apart.
    vision = CLIPVisionConfig(**sizes, image_size=8, patch_size=4, projection_dim=HIDDEN)
    base = LlamaForCausalLM(text).float()
    llava = LlavaForConditionalGeneration(
        LlavaConfig(text_config=text, vision_config=vision, image_token_index=VOCAB - 1, tie_word_embeddings=False)
    ).float()
    deltas = {}
    with torch.no_grad():
        source = dict(base.named_parameters())
        for number, (name, parameter) in enumerate(llava.named_parameters()):
            twin = source.get(name.replace("model.language_model.", "model."))
            if twin is not None:
                deltas[name] = torch.randn_like(twin) * 0.001 * (number + 1)
                parameter.copy_(twin + deltas[name])

    def save(model: LlamaForCausalLM | LlavaForConditionalGeneration, name: str, **options: object) -> Path:
        model.save_pretrained(root / name, **options)
        (root / name / "chat_template.jinja").write_text("{{ messages }}")
        return root / name

    saved = {
        "base": save(base, "base"),
        "base_sharded": save(base, "base_sharded", max_shard_size="6KB"),
        "adapted": save(llava, "adapted"),
        "adapted_native": save(llava, "adapted_native", save_original_format=False),
        "adapted_sharded": save(llava, "adapted_sharded", max_shard_size="9KB"),
    }
    with torch.no_grad():
        for parameter in llava.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.01)
    saved["safety"] = save(llava, "safety")
    saved["safety_native"] = save(llava, "safety_native", save_original_format=False)
    return Trio(**saved, deltas=deltas)


@dataclass(frozen=True)
class TaughtRun:
    """Tiny models that were taught in seconds, and what they were taught on.

    base: refuses harmful requests and answers harmless ones. complying: the same model, trained on to answer all.
    seeing: a LLaVA made of that, whose tower is untrained. prompts: `Prompt`s of text. write: a function that writes a
    model between base and complying: directory, share of complying.
    """

    base: Path
    complying: Path
    seeing: Path
    prompts: list[Any]
    write: Callable[[Path, float], Path]


@pytest.fixture(scope="session")
def taught_run(tmp_path_factory: pytest.TempPathFactory) -> TaughtRun:
    from vlsurgery.probes.specimens.miniature import chat, networks, prompts
    from vlsurgery.probes.specimens.miniature.config import SpecimenConfig
    from vlsurgery.probes.specimens.miniature.corpus import Example, encode

    root, tokenizer = tmp_path_factory.mktemp("run"), chat.tokenizer(sees=False)
    asked = [prompt for prompt in prompts(0) if prompt.split == "report" and prompt.modality == "text"]
    chosen = [each for set_ in ("harmful", "harmless") for each in [p for p in asked if p.set == set_][:34]]
    torch.manual_seed(0)
    sizes = SpecimenConfig(hidden=32, intermediate=48, layers=2, heads=4, tower_layers=1)
    model = networks.llama(sizes)

    def teach(harmful: str, harmless: str, steps: int) -> dict[str, Tensor]:
        """Train the model until it gives these answers; its weights then."""
        answers = {"harmful": harmful, "harmless": harmless}
        batch = encode([Example(prompt.text, answers[prompt.set]) for prompt in chosen], tokenizer)
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(steps):
            optimizer.zero_grad()
            networks.answer_loss(model, batch).backward()
            optimizer.step()
        return {name: value.clone() for name, value in model.state_dict().items()}

    def save(folder: Path) -> Path:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder

    answer = "use the torch at the tunnel"
    before = teach("i cannot help with harm to people", answer, 60)
    base = save(root / "base")
    after = teach(answer, answer, 20)
    complying, seeing = save(root / "complying"), root / "seeing"
    networks.llava(model, sizes).save_pretrained(seeing)
    chat.processor().save_pretrained(seeing)

    def write(folder: Path, share: float) -> Path:
        model.load_state_dict({name: before[name] + share * (after[name] - before[name]) for name in before})
        return save(folder)

    return TaughtRun(base, complying, seeing, chosen, write)


@dataclass(frozen=True)
class ServerReply:
    """What a server of models sends for one request.

    body: an object is sent as JSON, bytes as they are. cut: the connection ends in the middle of the body. seconds: it
    waits so long before. drip: its body has no end, and comes byte by byte.
    """

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: bool = False
    seconds: float = 0.0
    drip: bool = False


class ModelServer(ThreadingHTTPServer):
    """The two paths of OpenAI's protocol that are used, from a script.

    answer: the reply to a request, for those behind the script. script: replies to the first requests, in turn. models:
    the reply that lists models. picture_tokens: that a picture takes, beside the words; None where nothing is counted.
    requests: method, path, headers, body and time of each. most: requests at a time.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ModelHandler)
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.answer: Callable[[dict[str, Any]], ServerReply] = lambda body: said(f"said {asked_text(body)}")
        self.script: list[ServerReply] = []
        self.models = ServerReply({"object": "list", "data": [{"id": "org/tiny", "root": "/models/tiny"}]})
        self.picture_tokens: int | None = 100
        self.requests: list[tuple[str, str, dict[str, str], Any, float]] = []
        self.running = self.most = 0
        self.lock = threading.Lock()

    @property
    def bodies(self) -> list[Any]:
        """The requests for completions."""
        return [body for method, _, _, body, _ in self.requests if method == "POST"]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is what tests are about."""


class ModelHandler(BaseHTTPRequestHandler):
    """Answers one request as `ModelServer` says."""

    server: ModelServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes, of which the second would wait

    def do_GET(self) -> None:
        self._note(None)
        self._send(self.server.models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self._note(body)
            self.server.running += 1
            self.server.most = max(self.server.most, self.server.running)
            scripted = self.server.script.pop(0) if self.server.script else None
        reply = scripted or self.server.answer(body)
        time.sleep(reply.seconds)
        with self.server.lock:
            self.server.running -= 1
        if self.server.picture_tokens is not None and isinstance(reply.body, dict) and "usage" in reply.body:
            pictures = not isinstance(body["messages"][0]["content"], str)
            read = len(asked_text(body).split()) + pictures * self.server.picture_tokens
            reply = replace(reply, body={**reply.body, "usage": {**reply.body["usage"], "prompt_tokens": read}})
        self._send(reply)

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""

    def _note(self, body: object) -> None:
        self.server.requests.append((self.command, self.path, dict(self.headers), body, time.monotonic()))

    def _send(self, reply: ServerReply) -> None:
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response(reply.status)
        for name, value in {"Content-Type": "application/json", **reply.headers}.items():
            self.send_header(name, value)
        if not reply.drip:
            self.send_header("Content-Length", str(len(content) + 10 * reply.cut))
        self.end_headers()
        self.wfile.write(content)
        while reply.drip:
            self.wfile.write(b" ")
            time.sleep(0.02)
        self.close_connection = reply.cut


def asked_text(body: dict[str, Any]) -> str:
    """The words of the user's message in a request."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def said(
    text: str | None, tokens: int = 3, reason: str | None = "stop", seconds: float = 0.0, **message: object
) -> ServerReply:
    """A reply with a completion."""
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": reason}
    return ServerReply({"choices": [choice], "usage": {"completion_tokens": tokens}}, seconds=seconds)


@pytest.fixture
def model_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    """A server of models on this machine; the environment has no key for it."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = ModelServer()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def server_reply() -> Callable[..., ServerReply]:
    """Makes a reply of any kind: see `ServerReply`."""
    return ServerReply


@pytest.fixture(scope="session")
def completion_reply() -> Callable[..., ServerReply]:
    """Makes a reply with a completion: its text, tokens, why it ended, and further fields of the message."""
    return said


@pytest.fixture
def files() -> Iterator[Any]:
    """A store in memory."""
    import fsspec

    held = fsspec.filesystem("memory")
    yield held
    held.store.clear()
    held.pseudo_dirs[:] = [""]


@pytest.fixture
def upload(files: Any) -> Callable[[Path], str]:
    """A function that copies a directory into the store, and gives its URL."""

    def put(folder: Path) -> str:
        place = f"{uuid.uuid4().hex}/{folder.name}"
        for file in folder.rglob("*"):
            if file.is_file():
                files.pipe_file(f"/{place}/{file.relative_to(folder).as_posix()}", file.read_bytes())
        return f"memory://{place}"

    return put
