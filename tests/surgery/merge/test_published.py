"""A recipe and a card for others: no place of this machine is in them, and everything else is."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.hub import HubName
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.hub_parents import HubParent, hub_parts, parts_of
from vlsurgery.surgery.merge.model_card import model_card
from vlsurgery.surgery.merge.plan import plan_merge
from vlsurgery.surgery.merge.published import paths_in, published_card, published_recipe
from vlsurgery.surgery.merge.recipe import Recipe

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CACHED = f"/home/me/.cache/models--org--llava/snapshots/{COMMIT}"


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (CACHED, [HubParent("org/llava", COMMIT)]),
        (f"org/llava@{COMMIT}", [HubParent("org/llava", COMMIT)]),
        (f"{CACHED}+/home/me/lora", [HubParent("org/llava", COMMIT), None]),
        (f"/home/me/org/llava@{COMMIT}", [None]),
        ("/home/me/llava", [None]),
        ("org/llava@main", [None]),
    ],
)
def test_which_parts_of_a_reference_are_on_the_hub(path: str, parts: list[HubParent | None]) -> None:
    assert hub_parts(path) == parts


def test_a_directory_with_a_plus_in_its_name_is_one_place(tmp_path: Path) -> None:
    folder = tmp_path / "llama+vision"
    assert parts_of(str(folder)) == [str(tmp_path / "llama"), "vision"]  # as a base with its adapter is written
    folder.mkdir()
    assert parts_of(str(folder)) == [str(folder)]
    assert parts_of(f"{folder}+/home/me/lora") == [str(folder), "/home/me/lora"]
    assert hub_parts(str(folder)) == [None]


@pytest.fixture
def made(
    tmp_path: Path, write: Callable[..., Path], llama: Callable[..., dict[str, Tensor]]
) -> tuple[Recipe, str, Path]:
    """A recipe, the card that its merge writes, and the folder of its parents."""
    models = {
        role: Checkpoint.open(write(tmp_path / role, llama(seed))) for seed, role in enumerate(("adapted", "base"))
    }
    recipe = Recipe.of(models, {"default": {"base": 0.25}}, {"default": "a reason"})
    alignment = align(models, recipe.like)
    return recipe, model_card(recipe, alignment, plan_merge(recipe, alignment), 0), tmp_path


def test_places_are_replaced_by_names_that_the_hub_does_not_have(made: tuple[Recipe, str, Path]) -> None:
    recipe, _, _ = made
    paths = {"adapted": f"{CACHED}+/home/me/lora", "base": "/home/me/base"}
    refs = {role: ref.model_copy(update={"path": paths[role]}) for role, ref in recipe.checkpoints.items()}
    public = published_recipe(recipe.model_copy(update={"checkpoints": refs}))
    assert {role: ref.path for role, ref in public.checkpoints.items()} == {
        "adapted": f"org/llava@{COMMIT}+adapted-adapter",
        "base": "base",
    }
    assert HubName.of("base") is None
    assert public.coefficients == recipe.coefficients
    assert all(public.checkpoints[role].identity == ref.identity for role, ref in recipe.checkpoints.items())
    assert "/home/me" not in public.text()


def test_a_card_keeps_its_sections_and_loses_its_places(made: tuple[Recipe, str, Path]) -> None:
    recipe, written, folder = made
    written = written.replace(
        "## Limits", f"## Notes\n\n- base: {folder}/base/index.json: is stale.\n- a plain one.\n\n## Limits"
    )
    card = published_card(written, published_recipe(recipe), {"tags": ["é: #"]}, "It refuses **more**.")
    assert str(folder) in written
    assert str(folder) not in card
    assert card.startswith("---\ntags:\n- 'é: #'\n---\n")
    assert "## Behaviour\n\nIt refuses **more**.\n\n## Reproduce" in card
    assert "- a plain one." in card
    assert "- 1 more about files of the machine that it was made on are left out." in card
    assert "a reason" in card
    for ref in recipe.checkpoints.values():
        assert ref.identity in card
    assert "None were set for this merge" not in card


@pytest.mark.parametrize("written", ["", "# A model\n", "---\ntags: []\n---\n# A model\n\n## Parents\n"])
def test_another_card_is_refused(made: tuple[Recipe, str, Path], written: str) -> None:
    with pytest.raises(CheckpointError, match="not the card of a merge of ours"):
        published_card(written, published_recipe(made[0]), {}, "")


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("in /home/me/x.json: stale", ["/home/me/x.json:"]),
        ("`/mnt/data/base`", ["/mnt/data/base"]),
        (r"at C:\Users\me\base", [r"C:\Users\me\base"]),
        ("s3://bucket/llava: not copied", ["s3://bucket/llava:"]),
        ("~/models/base is it", ["~/models/base"]),
        ("org/name, https://example.org/a/b and 3/4 of and/or", []),
    ],
)
def test_what_a_path_is(text: str, paths: list[str]) -> None:
    assert paths_in(text) == paths
