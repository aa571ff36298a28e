"""Checkpoints on disk in every layout, with what lies beside weights."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]

TIED = {"num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 40, "tie_word_embeddings": True, "model_type": "llama"}
LAYOUTS = {
    "single": ({}, {}),
    "sharded": ({"shards": 3}, {}),
    "tied": (
        {"config": TIED},
        {"model.rotary.count": torch.tensor(7), "model.none": torch.zeros(0, dtype=torch.int64)},
    ),
}


@pytest.fixture
def folders(tmp_path: Path, write: Write, llama: Llama) -> Callable[[str], dict[str, Path]]:
    """A function that writes a base and two models made of it, in a layout."""

    def made(layout: str) -> dict[str, Path]:
        how, more = LAYOUTS[layout]
        found = {}
        for seed, role in enumerate(("base", "adapted", "safety")):
            tensors = llama(seed)
            if layout == "tied":
                del tensors["lm_head.weight"]
            found[role] = write(tmp_path / role, {**tensors, **more}, **how)
            (found[role] / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 0, "b": 1}}}))
            (found[role] / "additional_chat_templates").mkdir()
            (found[role] / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")
            (found[role] / "trainer.log").write_text("no companion")
        return found

    return made
