"""Classes that take padding for words are found out, and answer prompts as they do alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from families.all_families import FAMILIES
from families.build import build, quiet
from families.checks import Opened, asked

from vlsurgery.probes.evaluation import padding
from vlsurgery.probes.evaluation.generate import complete
from vlsurgery.probes.evaluation.padding import reads_padding
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.batches import Encoded, Rows


def opened(name: str, root: Path) -> ChatModel:
    with quiet():
        build(FAMILIES[name], root)
        return Opened(FAMILIES[name], root).adapted


@pytest.mark.parametrize(("name", "reads"), [("RWKV", True), ("Mamba", False), ("Granite 4", False), ("GPT-2", False)])
def test_padding_is_told_by_what_a_model_makes_of_it(name: str, reads: bool, tmp_path: Path) -> None:
    chat = opened(name, tmp_path)
    prompts = asked(pictures=False)
    assert len({len(one.ids) for one in chat.encode(prompts)}) > 1, "nothing would be padded"
    together = complete(chat, prompts, "", tokens=5)
    assert [c.ids for c in together] == [complete(chat, [prompt], "", tokens=5)[0].ids for prompt in prompts]
    assert any("reads padding" in note for note in chat.notes) == reads


@pytest.mark.parametrize(
    ("off", "shift", "reads"),
    [(0.1, 0.0, False), (0.1, 0.15, False), (0.1, 1.0, True), (0.01, 0.08, False), (0.01, 0.2, True)],
)
def test_what_a_batch_rounds_is_not_taken_for_padding(
    off: float, shift: float, reads: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 a batch of two equal prompts is off by up to a tenth, and by less for others of the same model; a
    reader is off by much more than that."""
    chat = opened("GPT-2", tmp_path)
    chat.model.to(torch.bfloat16)
    single = torch.linspace(-3, 3, 64)
    noise = torch.linspace(-1, 1, 64).roll(17)

    def said(_chat: ChatModel, items: Sequence[Encoded]) -> list[torch.Tensor]:
        if len(items) == 1:
            return [single]
        padded = items[0] is not items[1]
        return [single + (off + shift * padded) * single.norm() * noise / noise.norm()]

    monkeypatch.setattr(padding, "_logits", said)
    assert reads_padding(chat, chat.encode(asked(pictures=False))) is reads


def test_nothing_is_tried_where_all_prompts_are_of_one_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = opened("RWKV", tmp_path)
    monkeypatch.setattr(chat.model, "generate", None)  # as it is not asked
    encoded = chat.encode(asked(pictures=False)[:1])
    assert reads_padding(chat, encoded * 3) is False


def test_even_batches_hold_one_length_each(tmp_path: Path) -> None:
    encoded = opened("GPT-2", tmp_path).encode(asked(pictures=False))
    rows = Rows([*encoded, *encoded], even=True)
    batches = rows.divided(64, 9999)
    assert sorted(at for batch in batches for at in batch) == [0, 1, 2, 3, 4, 5]
    assert all(len({rows.length(at) for at in batch}) == 1 for batch in batches)
    assert len(batches) == len({len(one.ids) for one in encoded})
