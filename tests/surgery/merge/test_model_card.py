"""A model card holds all of its recipe, in words that a person and the Hub can read, and nothing of the machine."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor

from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.merge.model_card import left_out, model_card
from vlsurgery.surgery.merge.plan import plan_merge
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.methods import METHODS
from vlsurgery.surgery.results import CheckpointRef

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def models(tmp_path: Path, write: Write, llama: Llama) -> dict[str, Checkpoint]:
    return {
        role: Checkpoint.open(write(tmp_path / role, llama(seed)))
        for seed, role in enumerate(("base", "adapted", "safe", "unaligned"))
    }


def recipe_of(models: dict[str, Checkpoint], method: str, **fields: Any) -> Recipe:
    """A recipe with a key of every width, a list, and a reason."""
    rule = METHODS[method]
    roles = list(rule.named_inputs) or (["adapted"] if method == "slerp" else ["adapted", "safe"])
    some, few, along = (1.0, 1.0, [1.0, 1.0]) if rule.coefficient.whole else (0.25, 0.125, [0.1, 0.9])
    table = {
        "default": dict.fromkeys(roles, some),
        "mlp.gate": dict.fromkeys(roles, along),
        "1.mlp": dict.fromkeys(roles, few),
        "text.0.attn.q": dict.fromkeys(roles, 1.0),
    }
    base = {"base": "base"} if rule.needs_base else {}
    return Recipe.of(
        {role: models[role] for role in (*roles, *base)},
        table,
        {"1.mlp": "lost | most\nof it"},
        method=method,
        like="adapted",
        **{**base, **fields},
    )


def card_of(recipe: Recipe, models: dict[str, Checkpoint]) -> str:
    alignment = align({role: models[role] for role in recipe.checkpoints}, recipe.like)
    return model_card(recipe, alignment, plan_merge(recipe, alignment), 0)


def rows(card: str, section: str) -> list[list[str]]:
    """The cells of the table under a heading, less its head."""
    body = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", card, re.DOTALL | re.MULTILINE)
    assert body, section
    lines = [line for line in body[1].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


@pytest.mark.parametrize("method", METHODS)
def test_the_whole_recipe_is_in_it(models: dict[str, Checkpoint], method: str) -> None:
    recipe = recipe_of(models, method, seed=17, dtype="bfloat16")
    card = card_of(recipe, models)
    assert [[role, f"`{ref.path}`", f"`{ref.identity}`"] for role, ref in recipe.checkpoints.items()] == [
        [role.strip("`"), place, identity] for role, place, identity in rows(card, "Parents")
    ]
    shares = rows(card, "Coefficients")
    assert [row[0] for row in shares] == list(recipe.coefficients)
    assert [row[-1] for row in shares] == ["", "", "lost &#124; most of it", ""]
    assert shares[1][1] == ("[1, 1]" if recipe.merge_method.coefficient.whole else "[0.1, 0.9]")
    for words in (recipe.merge_method.formula, recipe.merge_method.source, "17", "bfloat16", f"`{recipe.like}`"):
        assert words in card


@pytest.mark.parametrize("method", [name for name, rule in METHODS.items() if rule.parameters])
def test_every_parameter_has_its_value_and_meaning(models: dict[str, Checkpoint], method: str) -> None:
    """By default, and where a key speaks of it; a default that no site has is left out."""
    rule = METHODS[method]
    plain = rows(card_of(recipe_of(models, method), models), "Parameters")
    assert [(row[0], row[3]) for row in plain] == [(name, each.meaning) for name, each in rule.parameters.items()]
    assert all("the method's own" in row[2] for row in plain)
    values = {name: each.default for name, each in rule.parameters.items()}
    told = recipe_of(models, method, parameters={"default": values, "1.mlp": values})
    keys = [row[:2] for row in rows(card_of(told, models), "Parameters")]
    assert keys == [[name, key] for name in rule.parameters for key in ("default", "1.mlp")]


def test_lists_switches_and_values_per_model_are_readable(models: dict[str, Checkpoint]) -> None:
    values = {"density": {"adapted": [0.5, 0.75], "safe": 1.0}, "normalize": False, "lambda": 0.5}
    card = card_of(recipe_of(models, "ties", parameters={"default": values}), models)
    shown = {name: value for name, _, value, _ in rows(card, "Parameters")}
    assert shown == {"density": "adapted: [0.5, 0.75], safe: 1", "normalize": "false", "lambda": "0.5"}


def front(card: str) -> dict[str, Any]:
    _, text, _ = card.split("---\n", 2)
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def test_the_hub_is_told_of_models_that_it_has(models: dict[str, Checkpoint], tmp_path: Path) -> None:
    """Whatever the cache calls them; a directory is no name there."""
    recipe = recipe_of(models, "ties")
    assert front(card_of(recipe, models)) == {"library_name": "transformers", "tags": ["merge", "vlsurgery"]}
    cached = f"{tmp_path}/models--some-org--chat/snapshots/{COMMIT}"
    paths = {"base": cached, "adapted": f"{cached}+{tmp_path}/lora", "safe": f"other/llava@{COMMIT}"}
    refs = {role: CheckpointRef(path=path, identity=f"sha256:{role}") for role, path in paths.items()}
    card = card_of(recipe.model_copy(update={"checkpoints": refs}), models)
    assert front(card)["base_model"] == ["some-org/chat", "other/llava"]
    assert front(card)["base_model_relation"] == "merge"
    assert f"some-org/chat at {COMMIT}" in card


def test_nothing_else_of_the_machine_is_in_it(models: dict[str, Checkpoint], tmp_path: Path) -> None:
    recipe = recipe_of(models, "dare_ties")
    card = card_of(recipe, models)
    for ref in recipe.checkpoints.values():
        card = card.replace(f"`{ref.path}`", "")
    for word in (os.getcwd(), str(tmp_path)):
        assert word not in card


def test_it_says_what_was_left_out_or_lacking(
    models: dict[str, Checkpoint], tmp_path: Path, write: Write, llama: Llama
) -> None:
    shallow = llama(7)
    del shallow["model.layers.1.mlp.up_proj.weight"]
    lacking = {**models, "safe": Checkpoint.open(write(tmp_path / "shallow", shallow))}
    assert "- safe has no tensor at 1 site that was" in card_of(recipe_of(lacking, "ties"), lacking)
    alignment = align({"adapted": lacking["adapted"], "safe": lacking["safe"]}, "safe")
    assert isinstance(alignment, Alignment)
    (said,) = left_out(alignment)
    assert said.startswith("adapted: 1 tensor is left out: ")
    assert left_out(align({"adapted": models["adapted"], "safe": models["safe"]}, "safe")) == []


HOSTILE = "a`b <img src=x onerror=alert(1)> | [l](javascript:x) <script>y</script> ``` \x1b[31m\u202e\n\n# head"


def test_nothing_in_a_card_is_markup_that_a_name_brought(models: dict[str, Checkpoint]) -> None:
    """Neither role, path, key, reason nor note can add a tag, a link, a cell, a heading or an escape sequence."""
    plain = recipe_of(models, "ties")
    recipe = plain.model_copy(
        update={
            "checkpoints": {
                role: CheckpointRef(path=f"/models/{HOSTILE}", identity=HOSTILE) for role in plain.checkpoints
            },
            "coefficients": {f"raw:{HOSTILE}": {"adapted": 1.0, "safe": 0.5}},
            "parameters": {f"raw:{HOSTILE}": {"lambda": 1.0}},
            "why": {f"raw:{HOSTILE}": HOSTILE},
        }
    )
    alignment = replace(align({role: models[role] for role in plain.checkpoints}, plain.like), notes=(HOSTILE,))
    card = model_card(recipe, alignment, plan_merge(plain, alignment), 0)
    assert set(re.findall(r"<[^>]*>", re.sub(r"`[^`]*`", "", card))) <= {"<code>", "</code>"}
    assert not {"\x1b", "\u202e"} & set(card)
    assert "](" not in card
    assert "```" not in card.replace("```\nvlsurgery merge --recipe recipe.yaml -o OUT\n```", "")
    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# `adapted`, merged by `ties`"]
    assert [len(row) for row in rows(card, "Coefficients")] == [4]
    assert [len(row) for row in rows(card, "Parents")] == [3, 3, 3]
