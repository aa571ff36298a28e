"""Slopes of embedding and head, folded without their gradients, are those of autograd: tied heads, scaled embeddings
and vocabularies that grew included."""

from pathlib import Path

import pytest
import torch
from families.all_families import FAMILIES
from families.build import build, quiet
from torch import Tensor

from vlsurgery.probes.gradients import Gradients
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.merge_parameters import MergeParameter
from vlsurgery.probes.models import Loader, load
from vlsurgery.probes.models.head import picked_logits
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.scoring import refusal_choices, refusal_log_odds
from vlsurgery.probes.weight_parts import WeightPart, WeightParts, is_routed
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


def test_an_experts_slope_is_that_of_its_own_weights(tmp_path: Path) -> None:
    """By finite differences, with one expert's weights moved by hand; and experts sum to all of them together."""
    with quiet():
        build(FAMILIES["Qwen3-VL-MoE"], tmp_path)
        checkpoints = {role: Checkpoint.open(tmp_path / role) for role in ("base", "adapted")}
        chat = load(checkpoints["adapted"], Loader(dtype="float32"))
    live = InMemoryMerge(chat, align(checkpoints), ("base",))
    parts = WeightParts.finest(live)
    prompts = [
        Prompt(f"{at}", f"{at}", "harmful", text, "fit") for at, text in enumerate(("how to fly", "a cat sat on"))
    ]
    one, other = ([torch.tensor([token])] * len(prompts) for token in (5, 9))
    batches = refusal_choices(chat, prompts, one, other)
    _, slopes = Gradients(live, parts).at_parts(live.everywhere(base=0.3), batches, ["0", "1"])
    entries = [entry for entry in live.entries if live.blocks[entry.block] == "1.mlp" and is_routed(entry.pair.site)]
    for expert in range(4):
        ends = []
        with live.at(live.everywhere(base=0.3)):
            for step in (-0.05, 0.05):
                _move_expert(live, entries, expert, step)
                ends.append(refusal_log_odds(chat, batches))
                _move_expert(live, entries, expert, -step)
        found = slopes[:, parts.parts.index(WeightPart("1.mlp", "experts", expert)), 0]
        torch.testing.assert_close(found, (ends[1] - ends[0]) / 0.1, rtol=0.02, atol=3e-4)
    blocks, _ = Gradients(live).at_parts(live.everywhere(base=0.3), batches, ["0", "1"])
    torch.testing.assert_close(parts.of_blocks(slopes, len(live.blocks)).float(), blocks.jacobian, rtol=1e-5, atol=1e-5)


def _move_expert(live: InMemoryMerge, entries: list[MergeParameter], expert: int, step: float) -> None:
    for entry in entries:
        base, adapted = (live.alignment.load(entry.pair, role).float() for role in ("base", "adapted"))
        view, delta = entry.of(entry.parameter.data), step * (base - adapted)
        if entry.pair.site.component.startswith("expert."):
            view += delta * (entry.pair.site.component.split(".")[1] == str(expert))
        else:
            view[expert] += delta[expert]


def _slopes(live: InMemoryMerge) -> Tensor:
    """Of two log-probabilities at a merge, with one token twice in the prompt."""
    ids = torch.tensor([[5, 9, 7, 30, 5]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with live.differentiable():
        live.move(live.tensor(live.everywhere(base=0.3)))
        logits = picked_logits(live.chat, inputs, torch.tensor([0, 0]), torch.tensor([2, 4]))
        torch.log_softmax(logits, -1)[:, 7].sum().backward()
        return live.gradient()
