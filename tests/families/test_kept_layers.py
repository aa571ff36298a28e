"""Layers and weights that the base lacks are told, and stay as adapted in the graft."""

from pathlib import Path

import pytest
import torch
from families.all_families import FAMILIES
from families.build import build, quiet
from families.checks import Opened

from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.kept_layers import kept_as_adapted
from vlsurgery.surgery.alignment import align


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Llama 3.2 Vision", ["the adapted model has 2 layers (1, 3), "]),
        ("ERNIE 4.5 VL", ["the adapted model has 12 weights in its layers, the first 1.mlp.vision_moe.gate.weight, "]),
        ("LLaVA-1.5", []),
    ],
)
def test_what_the_base_lacks_is_told_and_stays(name: str, told: list[str], tmp_path: Path) -> None:
    with quiet():
        build(FAMILIES[name], tmp_path)
        trio = Opened(FAMILIES[name], tmp_path)
        live = InMemoryMerge(
            trio.adapted, align({"adapted": trio.checkpoint("adapted"), "base": trio.checkpoint("base")}), ["base"]
        )
    notes = [*kept_as_adapted(live)]
    assert [note.split("which the base lacks")[0] for note in notes] == told
    blocks = trio.adapted.blocks
    before = [{name: value.clone() for name, value in block.state_dict().items()} for block in blocks]
    with live.at(live.everywhere(base=1.0)):
        same = [
            sum(torch.equal(value, old[name]) for name, value in block.state_dict().items())
            for block, old in zip(blocks, before, strict=True)
        ]
    expected = {"Llama 3.2 Vision": [0, len(before[1]), 0, len(before[3])], "ERNIE 4.5 VL": [0, 4, 4, 4]}
    assert same == expected.get(name, [0, 0, 0, 0])
