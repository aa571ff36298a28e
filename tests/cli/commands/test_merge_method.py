"""`merge --method` and `--recipe`: every method, its defaults, what it says beforehand and afterwards, every fault."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from vlsurgery.cli.main import app
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.methods import METHODS

Run = Callable[..., Result]
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}

Q = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def four(trio: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The trio and one model more."""
    weights = load_file(trio["adapted"] / "model.safetensors")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_bytes((trio["base"] / "config.json").read_bytes())
    save_file({name: tensor * 1.01 for name, tensor in weights.items()}, other / "model.safetensors")
    return {**trio, "other": other}


def order(method: str, paths: dict[str, Path]) -> list[str | Path]:
    """What is typed for a method, with nothing that it has a default for."""
    rule = METHODS[method]
    count = len(rule.named_inputs) or (1 if method == "slerp" else 2)
    models = [paths[role] for role in ("adapted", "safety", "other")[:count]]
    base = ["--base", paths["base"]] if rule.needs_base else []
    weight = [] if rule.coefficient.default else ["--weight", "0.3"]
    return ["merge", "--method", method, *models, *base, *weight]


def weights_in(folder: Path | str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def refused(shown: Result, *words: str) -> None:
    """One line that names the fault, exit code 2, nothing written."""
    assert shown.exit_code == 2, (shown.stdout, shown.stderr, shown.exception)
    assert shown.stdout == ""
    assert shown.stderr.startswith("error: ")
    assert shown.stderr.count("\n") == 1
    for word in words:
        assert word in shown.stderr
    assert not Path("out").exists()
    assert not list(Path().glob("*.partial"))


def test_help_names_every_method() -> None:
    told = CliRunner().invoke(app, ["merge", "--help"]).output
    assert ", ".join(METHODS) in " ".join(told.split())


NEW_METHOD = """
import sys
import numpy as np
from vlsurgery.surgery.methods import METHODS, Method, Parameter

def power_mean(chunk, settings, state):
    stacked = np.stack(list(chunk.models.values()))
    return np.sign(stacked[0]) * np.mean(np.abs(stacked) ** settings["exponent"], axis=0) ** (1 / settings["exponent"])

METHODS["power_mean"] = Method(
    power_mean, "theta = a power mean", "a test", ("equal_inputs",), False, Parameter("whether it takes part", 1.0),
    {"exponent": Parameter("the power of the mean", 1.0, low=1.0, high=9.0)},
)
from vlsurgery.cli.main import app
app(sys.argv[1:])
"""


def test_a_method_is_one_file_and_one_row(run: Run, four: dict[str, Path]) -> None:
    """Its parameter is an option of the program, in the help, checked, and handed to it."""

    def ran(*arguments: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", NEW_METHOD, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "--exponent" in ran("merge", "--help").stdout
    models = (four["adapted"], four["safety"])
    made = ran("merge", "--method", "power_mean", *models, "--exponent", 2, "-o", "out", "--quiet")
    assert made.returncode == 0, made.stderr
    name = "model.layers.0.mlp.up_proj.weight"
    first, second = (Checkpoint.open(path)[name].load().double() for path in models)
    wanted = first.sign() * ((first**2 + second**2) / 2).sqrt()
    assert Checkpoint.open("out")[name].load().double().allclose(wanted, rtol=1e-5)
    refusal = ran("merge", "--method", "power_mean", *models, "--exponent", 10, "-o", "out2").stderr
    assert "--exponent: 10" in refusal
    assert "between 1 and 9" in refusal


@pytest.mark.parametrize("method", ["linear", "slerp", "ties", "della"])
def test_a_merge_does_not_wait_for_torch(run: Run, four: dict[str, Path], method: str) -> None:
    """Its import takes longer than merging a small model."""
    arguments = [str(each) for each in [*order(method, four), "-o", "out"]]
    script = (
        f"import sys; from vlsurgery.cli.main import app; app({arguments}, standalone_mode=False); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout.splitlines()[-1:], done.returncode) == (["False"], 0), done.stderr


@pytest.mark.parametrize("method", METHODS)
def test_every_method_merges_and_its_recipe_gives_the_same_bytes(run: Run, four: dict[str, Path], method: str) -> None:
    tau = ["--tau", 1] if "tau" in METHODS[method].parameters else []  # so that every delta gives way
    shown = run(*order(method, four), *tau, "-o", "out", "--json", "--verify")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert json.loads(shown.stdout)["blended"] > 0
    out, like = Checkpoint.open("out"), Checkpoint.open(four["adapted"])
    assert {name: (t.shape, t.dtype) for name, t in out.items()} == {n: (t.shape, t.dtype) for n, t in like.items()}
    assert any(not torch.equal(out[name].load(), like[name].load()) for name in like)
    assert run("merge", "--recipe", "out/recipe.yaml", "-o", "again").exit_code == 0
    files = sorted(os.listdir("out"))
    assert files == sorted(os.listdir("again"))
    assert all((Path("out") / file).read_bytes() == (Path("again") / file).read_bytes() for file in files)


@pytest.mark.parametrize("method", METHODS)
def test_the_recipe_is_complete(run: Run, four: dict[str, Path], method: str) -> None:
    """Every parameter is in it: it will mean the same when a default is another one."""
    assert run(*order(method, four), "-o", "out", "--seed", 3).exit_code == 0
    data = yaml.safe_load(Path("out/recipe.yaml").read_text())
    parameters = METHODS[method].parameters
    assert data.get("parameters", {}).get("default", {}) == {name: rule.default for name, rule in parameters.items()}
    assert set(data["coefficients"]["default"]) == set(Recipe.load(Path("out/recipe.yaml")).models)
    assert data["seed"] == 3
    assert all(rule.meaning in Path("out/recipe.yaml").read_text() for rule in parameters.values())


def test_roles_are_named_after_the_models_and_never_twice(run: Run, four: dict[str, Path], tmp_path: Path) -> None:
    for place, role in (("a/chat-2", "base"), ("b/chat", "adapted"), ("c/chat", "safety")):
        (tmp_path / place).parent.mkdir()
        four[role].rename(tmp_path / place)
    paths = [tmp_path / "a/chat-2", tmp_path / "b/chat", tmp_path / "c/chat"]
    assert run("merge", "--method", "linear", *paths, "-o", "out").exit_code == 0
    assert Recipe.load(Path("out/recipe.yaml")).models == ["chat-2", "chat", "chat-3"]


def test_parts_that_a_method_knows_go_by_order(run: Run, four: dict[str, Path]) -> None:
    """Whatever the directories are called, a base that is called like a part included."""
    paths = (four["safety"], four["other"], "--base", four["adapted"], "--like", f"{four['other']}/")
    assert run("merge", "--method", "safelora", *paths, "-o", "out").exit_code == 0
    recipe = Recipe.load(Path("out/recipe.yaml"))
    assert {role: Path(ref.path).name for role, ref in recipe.checkpoints.items()} == {
        "adapted": "safety",
        "unaligned": "other",
        "base": "adapted",
    }
    assert (recipe.base, recipe.like) == ("base", "unaligned")


@pytest.mark.parametrize("method", ["slerp", "blend"])
def test_without_a_base_they_start_from_the_first_model(run: Run, four: dict[str, Path], method: str) -> None:
    for weight, wanted in ((0, "adapted"), (1, "safety")):
        paths = (four["adapted"], four["safety"])
        assert run("merge", "--method", method, *paths, "--weight", weight, "-o", f"out{weight}").exit_code == 0
        assert all(torch.equal(weights_in(f"out{weight}")[n], t) for n, t in weights_in(four[wanted]).items())


def test_a_base_among_the_models_is_no_model(run: Run, four: dict[str, Path]) -> None:
    paths = (four["base"], four["adapted"], four["safety"], "--base", f"{four['base']}/.")
    assert run("merge", "--method", "ties", *paths, "-o", "out").exit_code == 0
    recipe = Recipe.load(Path("out/recipe.yaml"))
    assert (recipe.models, recipe.base, recipe.like) == (["adapted", "safety"], "base", "adapted")


def test_numbers_are_for_all_models_or_for_each(run: Run, four: dict[str, Path]) -> None:
    asked = (*order("breadcrumbs", four), "--density", 0.5, "--density", 0.8, "--lambda", 0.7, "--gamma", 0.1)
    assert run(*asked, "--weight", 1, "--weight", 2, "--normalize", "-o", "out").exit_code == 0
    recipe = Recipe.load(Path("out/recipe.yaml"))
    assert recipe.coefficients == {"default": {"adapted": 1.0, "safety": 2.0}}
    each = {"density": {"adapted": 0.5, "safety": 0.8}, "lambda": 0.7, "gamma": 0.1, "normalize": True}
    assert recipe.parameters == {"default": each}


def test_weights_are_those_of_the_formula(run: Run, four: dict[str, Path]) -> None:
    assert run(*order("linear", four), "--weight", 1, "--weight", 3, "-o", "out").exit_code == 0
    one, other = weights_in(four["adapted"])[Q].double(), weights_in(four["safety"])[Q].double()
    torch.testing.assert_close(weights_in("out")[Q].double(), (one + 3 * other) / 4, rtol=0, atol=1e-6)


def test_dtype(run: Run, four: dict[str, Path]) -> None:
    assert run(*order("linear", four), "--dtype", "bfloat16", "-o", "out").exit_code == 0
    assert {tensor.dtype for tensor in weights_in("out").values()} == {torch.bfloat16}


def test_verify_tells_of_a_file_that_changed_since(
    run: Run, four: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that does not keep what it was given."""
    from vlsurgery.surgery.merge import run as operation

    write = operation.write

    def losing(order: Any, out: Path, *arguments: Any, **more: Any) -> Any:
        found = write(order, out, *arguments, **more)
        with (out / "model.safetensors").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"!")
        return found

    monkeypatch.setattr(operation, "write", losing)
    shown = run(*order("linear", four), "-o", "out", "--verify")
    assert shown.exit_code == 2
    assert "model.safetensors (other bytes than were written)" in shown.stderr
    assert shown.stdout == ""


@pytest.mark.parametrize("method", ["linear", "della"])
def test_a_plan_says_what_would_be_read_and_written(run: Run, four: dict[str, Path], method: str) -> None:
    shown = run(*order(method, four), "-o", "out", "--plan", "--json")
    (step,) = json.loads(shown.stdout)["plan"]
    nbytes = sum(tensor.nbytes for tensor in Checkpoint.open(four["base"]).values())
    roles = ["adapted", "safety", *(["base"] if METHODS[method].needs_base else [])]
    assert step["reads"] == {role: {"path": str(four[role]), "bytes": nbytes} for role in roles}
    assert step["writes"] == ["out"]
    assert step["bytes_read"] == nbytes * len(roles)
    assert 0 < step["memory"] <= 1 << 30
    told = run(*order(method, four), "-o", "out", "--plan").stdout
    assert os.listdir(".") == []
    made = json.loads(run(*order(method, four), "-o", "out", "--json").stdout)
    assert (step["tensors"], step["merged"], step["kept"]) == (made["tensors"], made["blended"], made["kept"])
    assert (
        step["bytes_written"]
        == (Path("out") / "model.safetensors").stat().st_size + (Path("out") / "config.json").stat().st_size
    )
    for words in (METHODS[method].formula, *map(str, (four[role] for role in roles)), "Nothing was written"):
        assert words in told


def test_a_plan_refuses_what_the_merge_would(run: Run, four: dict[str, Path]) -> None:
    before = sorted(os.listdir(four["base"]))
    refused(run(*order("linear", four), "-o", four["adapted"], "--plan"), str(four["adapted"]))
    refused(run(*order("linear", four), "-o", four["base"] / "deep" / "er", "--plan", "--density", 1), "--density")
    assert run(*order("linear", four), "-o", "not/yet/there", "--plan").exit_code == 0
    assert sorted(os.listdir(four["base"])) == before
    assert os.listdir(".") == []


FAULTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "no such method": ("--method tiess A S", ("'tiess'", "ties, ")),
    "no models": ("--method linear", ("2 or more models, and 0 are given", "--method linear MODEL MODEL -o OUT")),
    "one model": ("--method linear A", ("2 or more models, and 1 is given",)),
    "a model twice": ("--method linear A S A/", ("is there twice", "give each model once")),
    "no base": ("--method ties A S", ("ties takes deltas from a base", "--base")),
    "a base too many": ("--method linear A S --base B", ("--base: linear takes no deltas", "Leave it out")),
    "too many models": (
        "--method slerp A S O --weight 0.5",
        ("slerp merges 1 model beside the base, and 2 are given",),
    ),
    "a part without a model": (
        "--method safemerge A S --base B",
        ("3 models beside the base, and 2 are given", "safemerge ADAPTED SAFE UNALIGNED --base BASE -o OUT"),
    ),
    "nothing said of how far": ("--method slerp A S", ("slerp has to be told how far", "--weight")),
    "no such parameter": ("--method ties A S --base B --tau 1", ("--tau: ties has no such parameter", "--density")),
    "weights that fit nobody": (
        "--method linear A S --weight 1 --weight 1 --weight 1",
        ("3 times for 2 models", "once"),
    ),
    "a negative weight": ("--method linear A S --weight -0.5", ("--weight: -0.5 is not 0 or more",)),
    "a weight beyond": ("--method slerp A S --weight 1.5", ("--weight: 1.5 is not between 0 and 1",)),
    "a density beyond": ("--method ties A S --base B --density 2", ("--density: 2.0 is not between 0 and 1",)),
    "several of one": ("--method ties A S --base B --lambda 1 --lambda 1", ("--lambda: is one number for all models",)),
    "like a stranger": ("--method linear A S --like O", ("--like: ", "is none of the models; it is one of ")),
    "no such directory": ("--method linear A nowhere", ("nowhere: no such directory",)),
    "weights that are all 0": ("--method linear A S --weight 0", ("all coefficients are 0",)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_one_line(run: Run, four: dict[str, Path], fault: str) -> None:
    typed, words = FAULTS[fault]
    letters = {role[0].upper(): str(path) for role, path in four.items()}
    asked = [letters.get(word[0], "") + word[1:] if word[0] in letters else word for word in typed.split()]
    refused(run("merge", *asked, "-o", "out"), *words)


def test_targets_that_must_not_be_written(run: Run, four: dict[str, Path]) -> None:
    Path("full").mkdir()
    Path("full/precious").write_text("")
    inside = four["adapted"] / "merged"
    refused(run(*order("linear", four), "-o", inside), str(four["adapted"]), "-o")
    refused(run(*order("linear", four), "-o", "full"), "full: exists and is not a merge of ours", "-o")
    refused(run(*order("linear", four)), "add -o OUT")
    assert os.listdir("full") == ["precious"]
    assert not inside.exists()


def test_models_that_share_no_language_model(run: Run, four: dict[str, Path], stranger: Path) -> None:
    refused(run("merge", "--method", "linear", four["adapted"], stranger, "-o", "out"), "stranger")


@pytest.mark.parametrize(
    ("typed", "option", "home"),
    [
        ("--recipe r.yaml -o out --weight 0.5", "--weight", "--method"),
        ("--recipe r.yaml -o out --sum", "--normalize", "--method"),
        ("--recipe r.yaml -o out --seed 1", "--seed", "--method"),
        ("--recipe r.yaml -o out --dtype float16", "--dtype", "--method"),
        ("--auto --base x", "--base", "--method"),
        ("--auto --to-mergekit x", "--to-mergekit", "--recipe and --method"),
        ("--recipe r.yaml -o out --policy uniform", "--policy", "--auto"),
        ("--recipe r.yaml -o out --sparse", "--sparse", "--auto"),
        ("--recipe r.yaml -o out --extrapolate", "--extrapolate", "--auto"),
        ("--recipe r.yaml -o out --frontier", "--frontier", "--auto"),
        ("--auto --points 3", "--points", "--frontier"),
        ("--recipe r.yaml -o out --price 2", "--price", "--auto"),
        ("--recipe r.yaml -o out --write-anyway", "--write-anyway", "--auto"),
        ("--auto --write-anyway", "--write-anyway", "--limits"),
        ("--method linear a b -o out --prompts p:harmful", "--prompts", "--auto"),
    ],
)
def test_an_option_is_never_passed_over(run: Run, typed: str, option: str, home: str) -> None:
    refused(run("merge", *typed.split()), f"{option}: goes with {home} alone")


@pytest.mark.parametrize("option", ["--extrapolate", "--sparse", "--frontier", "--price 2"])
def test_what_gradients_answer_is_asked_of_policies_that_take_them(run: Run, option: str) -> None:
    shown = run("merge", "--auto", "--policy", "uniform", *option.split())
    refused(shown, f"{option.split()[0]}: goes with --policy linearised or best, not uniform")


@pytest.mark.parametrize(
    ("typed", "fault"),
    [
        ("--price 0", "--price 0: expected a number from 0.01 to 100"),
        ("--price nan", "--price nan: expected a number from 0.01 to 100"),
        ("--price 2 --policy uniform", "--price: goes with --policy linearised or best, not uniform"),
        ("--price 2 --sparse", "--price and --sparse: each chooses other coefficients"),
    ],
)
def test_a_price_that_can_mean_nothing(run: Run, typed: str, fault: str) -> None:
    refused(run("merge", "--auto", *typed.split()), fault)


def test_an_unknown_key_in_mergekits_file(run: Run, four: dict[str, Path]) -> None:
    models = [{"model": str(four[role])} for role in ("adapted", "safety")]
    theirs = {"merge_method": "linear", "models": models, "parameters": {"weight": 1}, "spice": 3}
    Path("order.yaml").write_text(yaml.safe_dump(theirs))
    refused(run("merge", "--recipe", "order.yaml", "-o", "out"), "order.yaml", "spice")


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base Llama, a LLaVA on it and a safety-tuned one, as transformers writes them, and an adapter for the LLaVA."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlamaForCausalLM,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    root = tmp_path_factory.mktemp("seeing")
    torch.manual_seed(0)
    text = LlamaConfig(**SIZES, num_key_value_heads=2, vocab_size=40)
    vision = CLIPVisionConfig(**SIZES, image_size=8, patch_size=4, projection_dim=16)
    base = LlamaForCausalLM(text)
    llava = LlavaForConditionalGeneration(
        LlavaConfig(text_config=text, vision_config=vision, image_token_index=39, tie_word_embeddings=False)
    )
    base.save_pretrained(root / "base")
    for role in ("adapted", "safety"):
        with torch.no_grad():
            for parameter in llava.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.01)
        llava.save_pretrained(root / role)
    (root / "lora").mkdir()
    (root / "lora" / "adapter_config.json").write_text(json.dumps(LORA))
    name = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_{}.weight"
    factors = {name.format("A"): torch.randn(2, 16), name.format("B"): torch.randn(16, 2)}
    save_file(factors, root / "lora" / "adapter_model.safetensors")
    return {path.name: path for path in root.iterdir()}


def loaded(folder: str) -> Any:
    """With transformers' own class, every key in its place."""
    from transformers import AutoModelForImageTextToText

    model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model


@pytest.mark.parametrize("like", ["adapted", "safety"])
def test_vision_stays_that_of_like_beside_a_base_that_is_blind(run: Run, seeing: dict[str, Path], like: str) -> None:
    paths = (seeing["adapted"], seeing["safety"], "--base", seeing["base"], "--like", seeing[like])
    assert run("merge", "--method", "ties", *paths, "-o", "out").exit_code == 0
    out, original = weights_in("out"), weights_in(seeing[like])
    moved = {name for name, tensor in original.items() if not torch.equal(out[name], tensor)}
    assert moved == {name for name in original if "language_model" in name}
    model = loaded("out")
    image, tokens = torch.rand(1, 3, 8, 8), torch.tensor([[1, 39, 39, 39, 39, 2]])
    assert model(input_ids=tokens, pixel_values=image).logits.isfinite().all()


def test_what_a_blind_like_has_no_place_for_is_said(run: Run, seeing: dict[str, Path]) -> None:
    shown = run("merge", "--method", "linear", seeing["base"], seeing["adapted"], "-o", "out")
    assert shown.exit_code == 0
    assert "left out: base has no vision tower." in shown.stderr
    assert "left out: base has no vision tower." in Path("out/README.md").read_text()
    assert "left out" not in run("merge", "--recipe", "out/recipe.yaml", "-o", "again", "--quiet").stderr


def test_an_adapter_is_merged_as_what_it_makes(run: Run, seeing: dict[str, Path]) -> None:
    folded = f"{seeing['adapted']}+{seeing['lora']}"
    assert run("merge", "--method", "linear", seeing["adapted"], folded, "-o", "out").exit_code == 0
    name = "language_model.model.layers.1.self_attn.q_proj.weight"
    one, other = weights_in(seeing["adapted"]), Checkpoint.open(folded)
    assert not torch.equal(one[name], other[name].load())
    torch.testing.assert_close(weights_in("out")[name], (one[name] + other[name].load()) / 2, rtol=0, atol=1e-6)
    loaded("out")
