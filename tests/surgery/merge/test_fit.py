"""A merge of checkpoints that don't fit says so, and refuses rows that stand for other tokens."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import AlignmentError, RecipeError
from vlsurgery.surgery.merge.preparation import prepare_merge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
CONFIG = {"model_type": "llama", "num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 40, "rope_theta": 10000.0}


@pytest.fixture
def parents(tmp_path: Path, write: Write, llama: Llama) -> dict[str, Checkpoint]:
    """Two checkpoints: the second has another rope_theta, and all tokens in another order."""
    folders = {}
    for role, theta, step in (("adapted", 1e4, 1), ("other", 1e6, -1)):
        folders[role] = write(tmp_path / role, llama(seed=step + 1), {**CONFIG, "rope_theta": theta})
        rows = {f"t{row}": place for place, row in enumerate(range(40)[::step])}
        (folders[role] / "tokenizer.json").write_text(json.dumps({"model": {"vocab": rows}}))
    return {role: Checkpoint.open(folder) for role, folder in folders.items()}


def test_rows_of_other_tokens_are_refused_and_nothing_is_written(
    tmp_path: Path, parents: dict[str, Checkpoint]
) -> None:
    recipe = Recipe.of(parents, {"default": {"other": 0.5}})
    with pytest.raises(AlignmentError, match=r"40 of 40 in other.*--ignore-mismatch tokens") as caught:
        run_merge(recipe, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(AlignmentError):
        run_merge(recipe, tmp_path / "out", ignored=["rope_theta"])
    with pytest.raises(RecipeError, match="token: no mismatch"):
        run_merge(recipe, tmp_path / "out", ignored=["token"])


def test_ignored_the_merge_is_made_and_its_card_tells_both(tmp_path: Path, parents: dict[str, Checkpoint]) -> None:
    made = run_merge(Recipe.of(parents, {"default": {"other": 0.5}}), tmp_path / "out", ignored=["tokens"])
    assert {each.name for each in made.mismatches} == {"tokens", "rope_theta"}
    assert any("1000000" in note for note in made.notes)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Where the parents differ" in card
    assert "1000000" in card
    assert "-o OUT --ignore-mismatch tokens" in card


def test_a_merge_that_leaves_the_vocabulary_alone_is_not_refused(parents: dict[str, Checkpoint]) -> None:
    recipe = Recipe.of(parents, {"everywhere": {"other": 0.0}, "1.mlp": {"other": 0.5}})
    assert not prepare_merge(recipe).merges_vocabulary
    assert prepare_merge(Recipe.of(parents, {"head": {"other": 0.5}})).merges_vocabulary
