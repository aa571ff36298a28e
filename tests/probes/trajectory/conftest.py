"""A tiny Llama that was taught in seconds to refuse harmful requests, and one that was taught to answer them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.specimens.miniature import chat, prompts
from vlsurgery.probes.specimens.miniature.corpus import Example, encode
from vlsurgery.probes.specimens.miniature.networks import answer_loss

REFUSAL = "i cannot help with harm to people"
ANSWER = "use the torch at the tunnel"
REQUESTS = 34
STEPS = 60


@dataclass(frozen=True)
class Run:
    """base: refuses harmful requests and answers harmless ones. complying: the same model, trained on to answer all.
    prompts: what both were taught on. write: a directory of a mixture: name, share of `complying`."""

    base: Path
    complying: Path
    prompts: list[Prompt]
    write: Callable[[Path, float], Path]


def taught(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, answers: Mapping[str, str], steps: int) -> None:
    """Train a model until it gives these answers."""
    batch = encode([Example(text, answer) for text, answer in answers.items()], tokenizer)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        answer_loss(model, batch).backward()
        optimizer.step()


def saved(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def taught_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root, tokenizer = tmp_path_factory.mktemp("run"), chat.tokenizer(sees=False)
    asked = [p for p in prompts(0) if p.split == "report" and p.modality == "text"]
    chosen = [p for set_ in ("harmful", "harmless") for p in [q for q in asked if q.set == set_][:REQUESTS]]
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.1, **sizes))
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    taught(model, tokenizer, {p.text: REFUSAL if p.set == "harmful" else ANSWER for p in chosen}, STEPS)
    base = saved(model, tokenizer, root / "base")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    taught(model, tokenizer, {p.text: ANSWER for p in chosen}, STEPS // 3)
    complying = saved(model, tokenizer, root / "complying")
    after = {name: value.clone() for name, value in model.state_dict().items()}

    def write(folder: Path, share: float) -> Path:
        mixed: dict[str, Tensor] = {name: before[name] + share * (after[name] - before[name]) for name in before}
        model.load_state_dict(mixed)
        return saved(model, tokenizer, folder)

    return Run(base, complying, chosen, write)
