"""Slopes of embedding and head, folded without their gradients, are those of autograd: tied heads, scaled embeddings
and vocabularies that grew included."""

from pathlib import Path

import pytest
import torch
from families.all_families import FAMILIES
from families.build import build, quiet
from torch import Tensor

from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import Loader, load
from vlsurgery.probes.models.head import picked_logits
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint


@pytest.mark.parametrize(("name", "tied"), [("LLaVA-1.5", False), ("PaliGemma", True), ("Gemma 3", True)])
def test_slopes_of_the_tables_are_autograds(name: str, tied: bool, tmp_path: Path, monkeypatch) -> None:
    with quiet():
        build(FAMILIES[name], tmp_path)
        checkpoints = {role: Checkpoint.open(tmp_path / role) for role in ("base", "adapted")}
        chat = load(checkpoints["adapted"], Loader(dtype="float32"))
    assert (chat.model.get_input_embeddings().weight is chat.model.get_output_embeddings().weight) == tied
    live = InMemoryMerge(chat, align(checkpoints), ("base",))
    watched = _slopes(live)
    monkeypatch.setattr(live, "_watched", lambda *_: set())  # then every parameter takes a gradient of its own
    torch.testing.assert_close(watched, _slopes(live), rtol=1e-5, atol=1e-8)
    assert watched[live.blocks.index("embed")].abs() > 1e-3


def _slopes(live: InMemoryMerge) -> Tensor:
    """Of two log-probabilities at a merge, with one token twice in the prompt."""
    ids = torch.tensor([[5, 9, 7, 30, 5]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with live.differentiable():
        live.move(live.tensor(live.everywhere(base=0.3)))
        logits = picked_logits(live.chat, inputs, torch.tensor([0, 0]), torch.tensor([2, 4]))
        torch.log_softmax(logits, -1)[:, 7].sum().backward()
        return live.gradient()
