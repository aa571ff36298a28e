"""`merge --auto` where there is nothing to repair, too little to choose by, or a broken checkpoint."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

TINY = Path(__file__).parents[2] / "benchmarks" / "tiny_trio.py"
THINGS = 12


@pytest.fixture(scope="module")
def tiny():
    spec = importlib.util.spec_from_file_location("tiny_trio", TINY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def base(tiny, tmp_path_factory) -> Path:
    """A base that refuses what is harmful and answers the rest."""
    folder = tmp_path_factory.mktemp("tiny") / "base"
    torch.manual_seed(0)
    tokenizer = tiny._tokenizer()
    model = LlamaForCausalLM(tiny._text_config(tokenizer))
    bad = tiny.requests("harmful", THINGS) + tiny.requests("jailbroken", THINGS)
    fine = tiny.requests("harmless", THINGS) + tiny.requests("borderline", THINGS)
    tiny._train(model, tokenizer, [(r, tiny.REFUSAL) for r in bad] + [(r, tiny.ANSWER) for r in fine], 60)
    tiny._save(model, tokenizer, folder)
    return folder


def changed(base: Path, folder: Path, entry: float) -> Path:
    """The base with one entry of one matrix set."""
    shutil.copytree(base, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = entry
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_no_loss_gives_a_merge_of_nothing_and_says_so(run, tiny, base, tmp_path):
    options = tiny.write_prompts(tmp_path)
    adapted = changed(base, tmp_path / "adapted", 0.01)
    assert run("diff", base, adapted, "--level", "norms").exit_code == 0
    done = run("merge", "--auto", "--json", *options)
    assert done.exit_code == 0, done.output
    tradeoff = json.loads(Path("case/tradeoff.json").read_text())
    assert tradeoff["verdict"].startswith("No refusal was lost: of the ")
    (point,) = tradeoff["points"]
    assert {value for row in point["coefficients"].values() for value in row.values()} == {0.0}
    ends = [load_file(folder / "model.safetensors") for folder in (adapted, Path("case/merged"))]
    assert all(torch.equal(ends[1][name], value) for name, value in ends[0].items())


def test_too_few_prompts_say_how_many_it_takes(run, tiny, base, tmp_path):
    """Of each split the base refuses what three requests' prompts ask, or less."""
    options = tiny.write_prompts(tmp_path, 2)
    assert run("diff", base, changed(base, tmp_path / "adapted", 0.01), "--level", "norms").exit_code == 0
    done = run("merge", "--auto", *options)
    assert done.exit_code == 2
    assert "too few prompts to choose coefficients by: of the harmful" in done.stderr
    assert "harmful requests in all" in done.stderr
    assert not Path("case/recipe.yaml").exists()


def test_nan_names_its_tensor_before_anything_is_written(run, tiny, base, tmp_path):
    options = tiny.write_prompts(tmp_path, 2)
    broken = changed(base, tmp_path / "adapted", float("nan"))
    opened = run("diff", base, broken, "--level", "norms")
    done = opened if opened.exit_code else run("merge", "--auto", *options)
    assert done.exit_code == 2
    assert "model.layers.1.mlp.down_proj.weight" in done.stderr
    assert "NaN" in done.stderr
    assert not Path("case/recipe.yaml").exists()
