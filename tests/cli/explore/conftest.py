"""A case of tiny random models that speak the specimen's language, made by hand, and its page served in a thread."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from vlsurgery.cli.explore.server import PageServer
from vlsurgery.cli.explore.session import open_page
from vlsurgery.cli.options import Running
from vlsurgery.cli.workflow.case import Case
from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.results import (
    CompletionRecord,
    DirectionChoice,
    DirectionSelection,
    Estimate,
    ProbeResult,
    Selected,
    SeparationRow,
    Target,
    TargetsResult,
    Verdict,
)
from vlsurgery.probes.specimens.miniature import chat
from vlsurgery.surgery.checkpoint import Checkpoint

HIDDEN, LAYERS = 16, 3
POSITIONS = ("instruction", "-2", "-1")
MARKUP = "<img src=x onerror=alert(1)><b>steal</b> \x1b[31m \u202e"
REFUSAL = "i"  # with which the base's refusals begin


def _model(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    tokenizer = chat.tokenizer(sees=False)
    sizes = {"hidden_size": HIDDEN, "intermediate_size": 24, "num_hidden_layers": LAYERS, "num_attention_heads": 2}
    config = LlamaConfig(**sizes, vocab_size=len(tokenizer), initializer_range=0.3, max_position_embeddings=64)
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _row(role: str, position: str, layer: int) -> SeparationRow:
    return SeparationRow(
        role=role, modality="text", position=position, layer=layer, norm=1.0 + layer,
        auroc=Estimate(value=0.5 + 0.1 * layer, low=0.4, high=0.9, n=60), dprime=Estimate(value=1.0, n=60),
    )  # fmt: skip


def _probe() -> ProbeResult:
    rows = [_row(role, at, layer) for role in ("base", "adapted") for at in POSITIONS for layer in range(LAYERS)]
    nothing = DirectionChoice(chosen=None, ties=[], passed=0, discarded={})
    return ProbeResult(
        rows=rows, cosines=[], selected=Selected(layer=1, position="-2", auroc=0.9, null=0.6),
        selection=DirectionSelection(
            candidates=[], choice=nothing, refusal_tokens=[REFUSAL], harmful=9, harmless=9, cost=0.1
        ),
        attribution=[], transplants=[], completeness=None, ceiling=None, notes=[], verdict="The base tells them apart.",
    )  # fmt: skip


def _said(role: str, set_: str, number: int, prompt: str, text: str, label: str) -> CompletionRecord:
    kind = {"refused": "refusal", "complied": "compliance"}[label]
    return CompletionRecord(
        role=role, id=f"{set_}/{number}", request=f"r{number}", set=set_, modality="text", prompt=prompt, text=text,
        tokens=3, cut=False, verdicts={"j": Verdict(label=label, kind=kind, reason="by hand")}, prompts_digest="d",
    )  # fmt: skip


def _completions() -> list[CompletionRecord]:
    found = []
    for number in range(30):
        harmful, harmless = f"i want to kill the cat {number}", f"i want to praise the cat {number}"
        if number == 3:
            harmful = MARKUP
        found += [
            _said("base", "harmful", number, harmful, "i cannot help", "refused"),
            _said("base", "harmless", number, harmless, "use the torch", "complied"),
            _said("adapted", "harmful", number, harmful, MARKUP, "complied" if number % 2 else "refused"),
            _said("adapted", "harmless", number, harmless, "use the torch", "complied"),
        ]
    return found


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The case's folder."""
    root = tmp_path_factory.mktemp("explored")
    models = {role: Checkpoint.open(_model(root / role, seed)) for seed, role in enumerate(("base", "adapted"))}
    case = Case.create(root / "case", models)
    case.save(_probe(), {})
    generator = np.random.default_rng(0)
    vectors = {
        f"{role}/text/{at}": generator.standard_normal((LAYERS, HIDDEN)).astype(np.float32)
        for role in models
        for at in POSITIONS
    }
    save_file(vectors, case.path("directions.safetensors"))
    word = chat.tokenizer(sees=False).convert_tokens_to_ids(REFUSAL)
    case.save(TargetsResult(rows=[Target(prompt="p", role="base", text="i", ids=[word], verdict="refused")]), {})
    CompletionFile(case.path("completions.jsonl")).replace(_completions())
    return root / "case"


@dataclass(frozen=True)
class Client:
    """Sends requests as a browser's page would, but for what a test changes."""

    server: PageServer

    @property
    def token(self) -> str:
        return self.server.guard.token

    def send(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the answer to a request whose path is sent as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.guard.port, timeout=120)
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in {"Host": self.server.guard.hosts[0], **(headers or {})}.items():
            connection.putheader(name, value)
        if body is not None and "Content-Length" not in (headers or {}):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = answer.status, dict(answer.getheaders()), answer.read()
        connection.close()
        return found

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        status, _, body = self.send("GET", f"/{self.token}{path}", headers)
        return status, json.loads(body)

    def read(self, **changed: Any) -> tuple[int, Any]:
        """A typed prompt."""
        typed = {"role": "base", "text": "i want to kill the cat", "modality": "text", "direction": "base/text",
                 "position": "-1"} | changed  # fmt: skip
        headers = {"Content-Type": "application/json"}
        status, _, body = self.send("POST", f"/{self.token}/read", headers, json.dumps(typed).encode())
        return status, json.loads(body)


@contextmanager
def _serving(server: PageServer) -> Iterator[Client]:
    """A client of a server that runs in a thread while the context is open."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    with server:
        thread.start()
        try:
            yield Client(server)
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="session")
def serving() -> Callable[[PageServer], AbstractContextManager[Client]]:
    return _serving


@pytest.fixture(scope="session")
def client(explored: Path) -> Iterator[Client]:
    with open_page(explored, Running(), 0) as server, _serving(server) as found:
        yield found
