"""Tiny models with random weights that speak the specimen's language: seconds to make, and nothing is trained."""

import pickle
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
)

from vlsurgery.probes.linearised import LinearModel
from vlsurgery.probes.objective import requirements
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt
from vlsurgery.probes.results import Target, TargetsResult
from vlsurgery.probes.specimens.miniature import chat, pictures
from vlsurgery.probes.targets import working_prompts
from vlsurgery.surgery.checkpoint import Checkpoint


@dataclass(frozen=True)
class Trio:
    base: Path
    adapted: Path
    safety: Path

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        return {role: Checkpoint.open(getattr(self, role)) for role in ("base", "adapted", "safety")}


def _text_config(vocabulary: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,
    )


def _generation(tokenizer) -> GenerationConfig:
    return GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)


def _seeing(folder: Path, base: LlamaForCausalLM, seed: int, moved_from: LlavaForConditionalGeneration | None):
    torch.manual_seed(seed)
    processor = chat.processor()
    tokenizer = processor.tokenizer
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=pictures.SIDE,
        patch_size=pictures.PATCH,
        initializer_range=0.2,
    )
    config = LlavaConfig(
        text_config=_text_config(len(tokenizer)),
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids(chat.IMAGE),
        image_seq_length=pictures.IMAGE_TOKENS,
        vision_feature_select_strategy="default",
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    parent = moved_from.state_dict() if moved_from else None
    grown = dict(base.state_dict())
    with torch.no_grad():
        for name, value in model.state_dict().items():
            start = parent[name] if parent else grown.get(name.replace("model.language_model.", "model."))
            if start is None:
                continue
            rows = min(len(start), len(value))
            value[:rows] = start[:rows] + 0.02 * torch.randn_like(start[:rows])
    model.generation_config = _generation(tokenizer)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


@pytest.fixture(scope="session")
def trio(tmp_path_factory) -> Trio:
    """A random base, an adapted model that is base plus noise and a bigger vocabulary, and a noisy tuning of that."""
    root = tmp_path_factory.mktemp("trio")
    torch.manual_seed(0)
    tokenizer = chat.tokenizer(sees=False)
    base = LlamaForCausalLM(_text_config(len(tokenizer)))
    base.generation_config = _generation(tokenizer)
    base.save_pretrained(root / "base")
    tokenizer.save_pretrained(root / "base")
    adapted = _seeing(root / "adapted", base, 1, None)
    _seeing(root / "safety", base, 2, adapted)
    return Trio(root / "base", root / "adapted", root / "safety")


@pytest.fixture(scope="session")
def asked() -> list[Prompt]:
    """Prompts of different lengths in the specimen's words, harmful and harmless, with and without a picture."""
    from vlsurgery.probes.specimens.miniature import prompts

    every = [p for p in prompts(0) if p.split == "fit"]
    picked = []
    for set_, modality in (
        ("harmful", "text"),
        ("harmless", "text"),
        ("harmful", "benign"),
        ("harmless", "benign"),
        ("capability", "own"),
    ):
        picked += [p for p in every if (p.set, p.modality) == (set_, modality)][:6]
    assert len(picked) == 30
    assert any(isinstance(p.image, Image.Image) for p in picked)
    return picked


@pytest.fixture(scope="session")
def every() -> list[Prompt]:
    """All of the miniature's prompts."""
    from vlsurgery.probes.specimens.miniature import prompts

    return prompts(0)


@pytest.fixture(scope="session")
def targets(every) -> TargetsResult:
    """A base that refuses everything harmful and an adapted model that answers everything, in the specimen's words."""
    refusal, answer = "i can not help with that .", "use the tool"
    rows = []
    for prompt in working_prompts(every):
        if prompt.set in HARMFUL_SETS:
            rows.append(Target(prompt=prompt.id, role="base", text=refusal, ids=[], verdict="refused"))
        rows.append(Target(prompt=prompt.id, role="adapted", text=answer, ids=[], verdict="complied"))
    return TargetsResult(rows=rows)


@pytest.fixture(scope="session")
def permuted() -> Callable[[LinearModel, Sequence[int]], LinearModel]:
    """Gives a linear model whose prompts stand in another order."""

    def make(model: LinearModel, order: Sequence[int]) -> LinearModel:
        wanted, at = model.wanted, list(order)
        rows = list(zip(wanted.prompts, wanted.requests, wanted.cells, wanted.purposes, strict=True))
        again = requirements([rows[i] for i in at], wanted.reference[at])
        return replace(model, wanted=again, z=model.z[at], jacobian=model.jacobian[at])

    return make


class FarStayers:
    """Two workers that get everything as bytes, take turns and answer last things first; in every list, the first one
    dies over the first item, and another one takes its place.

    set_ups: how many were begun. places: how many were asked for. lists: of items that they were given.
    """

    def __init__(self) -> None:
        self.set_ups, self.places, self.lists = 0, list[int](), list[list[Any]]()

    def num_workers(self, num_items: int) -> int:
        return min(2, num_items)

    @contextmanager
    def staying(self, set_up: Any, num_items: int) -> Iterator[Callable[[Sequence[Any]], Generator[Any, None, None]]]:
        self.places.append(num_items)
        sent, threads = pickle.dumps(set_up), torch.get_num_threads()

        def begun() -> Any:
            self.set_ups += 1
            made = pickle.loads(sent)()
            assert torch.get_num_threads() == threads  # more may sum in another order
            return made

        workers = [begun(), begun()]

        def do(items: Sequence[Any]) -> Generator[Any, None, None]:
            self.lists.append(list(items))
            made = []
            for at, item in enumerate(pickle.loads(pickle.dumps(items))):
                if at == 0 and len(self.lists) == 1:
                    list(workers[0](item))  # was done, and its worker died before it could tell
                    workers[0] = begun()
                made.append(pickle.loads(pickle.dumps(list(workers[at % 2](item)))))
            for results in reversed(made):
                yield from results

        yield do
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def far_stayers() -> type[FarStayers]:
    return FarStayers


class Bars:
    """Progress that is noted. done: label, total as announced, and items that came, of each bar that ended."""

    def __init__(self) -> None:
        self.done: list[tuple[str, int, int]] = []

    def told(self, items: Any, label: str, total: int | None = None) -> Iterator[Any]:
        count, found = len(items) if total is None else total, 0
        for item in items:
            yield item
            found += 1
        self.done.append((label, count, found))


@pytest.fixture
def bars() -> Bars:
    return Bars()
