"""What is written is what the methods, as functions of whole tensors, make of each tensor: however much is read at a
time, for every method, and with the settings that the recipe has for its site."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError, RecipeError
from vlsurgery.surgery.merge import pieces, streams
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.recipe_keys import at
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.methods import METHODS, method, projection

if TYPE_CHECKING:
    from conftest import Trio

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
GATE = "model.layers.{}.mlp.gate_proj.weight"


class Family:
    """A base and three models that grew from it, on disk and in memory."""

    def __init__(self, folder: Path, write: Write, llama: Llama, dtype: torch.dtype, layers: int = 2) -> None:
        base = llama(0, layers=layers)
        self.tensors = {"base": {name: tensor.to(dtype) for name, tensor in base.items()}}
        for seed, role in enumerate(("adapted", "safe", "unaligned"), 1):
            moves = llama(seed, layers=layers)
            self.tensors[role] = {name: (base[name] + 0.1 * moves[name]).to(dtype) for name in base}
        self.folder = folder
        paths = {role: write(folder / role, held, shards=2) for role, held in self.tensors.items()}
        self.checkpoints = {role: Checkpoint.open(path) for role, path in paths.items()}
        self.sites = identify(self.checkpoints["base"].shapes, self.checkpoints["base"].config)

    def recipe(self, name: str, *models: str, **fields: Any) -> Recipe:
        rule = METHODS[name]
        chosen = rule.named_inputs or models or ("adapted", "safe", "unaligned")[: rule.models[1]]
        roles = [*(["base"] if rule.needs_base else []), *chosen]
        high = 1.0 if rule.coefficient.high == 1 and rule.coefficient.meaning.startswith("whether") else 0.4
        fields.setdefault("coefficients", {"everywhere": dict.fromkeys(chosen, high)})
        if rule.needs_base and name != "blend":
            fields.setdefault("base", "base")
        return Recipe(
            checkpoints={role: self.checkpoints[role].ref_model for role in roles},
            like=fields.pop("like", roles[0]),
            method=name,
            **fields,
        )

    def made(self, recipe: Recipe, out: str = "out") -> dict[str, Tensor]:
        run_merge(recipe, self.folder / out)
        return {name: tensor.load() for name, tensor in Checkpoint.open(self.folder / out).items()}

    def expected(self, recipe: Recipe, name: str, weights: dict[str, float], **settings: Any) -> Tensor:
        """The tensor as the method, as a function, makes it."""
        base = self.tensors["base"][name] if recipe.merge_method.needs_base else None
        models = {role: self.tensors[role][name] for role in weights}
        return recipe.merge_method.merge(models, base, weights, recipe.seed, self.sites[name].key, **settings)


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float16], ids=str)
def family(request: pytest.FixtureRequest, tmp_path: Path, write: Write, llama: Llama) -> Family:
    return Family(tmp_path, write, llama, request.param)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("way", ["at once", "in small pieces", "resident, read in small ranges"])
def test_every_method(family: Family, name: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On disk, in pieces and in parallel, as in memory and at once."""
    if way == "in small pieces":
        monkeypatch.setattr(pieces, "PIECE_SIZE", 48)
        monkeypatch.setattr(pieces, "MAX_SINGLE_PIECE_SIZE", 0)
    if way != "at once":
        monkeypatch.setattr(projection, "GROUP_SIZE", 40)
        monkeypatch.setattr(streams, "READ_SIZE", 64)
        monkeypatch.setattr(streams, "chunk_size", lambda shape, rows: method.chunk_size(shape, rows, 16))
    settings = {"density": 0.6} if "density" in METHODS[name].parameters else {}
    recipe = family.recipe(name, parameters={"everywhere": settings} if settings else {}, seed=7)
    result = family.made(recipe)
    for tensor in result:
        wanted = family.expected(recipe, tensor, recipe.coefficients["everywhere"], **settings)
        # Sums over a whole tensor (angles) are added up in another order.
        tolerance = {"rtol": 0, "atol": 0} if way == "at once" else {"rtol": 1e-5, "atol": 1e-6}
        torch.testing.assert_close(result[tensor], wanted, **tolerance)  # type: ignore[arg-type]


def test_settings_are_those_of_the_most_specific_key(family: Family) -> None:
    recipe = family.recipe(
        "ties",
        "adapted",
        "safe",
        coefficients={
            "default": {"adapted": [0.2, 0.8], "safe": 0.5},
            "1.mlp": {"adapted": 0.1},
            "text.0.mlp.gate": {"safe": 0.9},
        },
        parameters={
            "default": {"lambda": 0.5, "density": {"adapted": 0.3, "safe": [0.9, 0.7]}},
            "mlp.gate": {"density": 0.6},
            "0": {"lambda": 1.5},
        },
    )
    result = family.made(recipe)

    def check(tensor: str, weights: dict[str, float], **settings: Any) -> None:
        torch.testing.assert_close(result[tensor], family.expected(recipe, tensor, weights, **settings), rtol=0, atol=0)

    each = {"adapted": 0.3, "safe": 0.9}
    check("model.layers.0.self_attn.q_proj.weight", {"adapted": 0.2, "safe": 0.5}, density=each, **{"lambda": 1.5})
    check(GATE.format(0), {"safe": 0.9}, density=0.6, **{"lambda": 1.5})
    check(GATE.format(1), {"adapted": 0.1}, density=0.6, **{"lambda": 0.5})
    check("lm_head.weight", {"adapted": 0.8, "safe": 0.5}, density={"adapted": 0.3, "safe": 0.7}, **{"lambda": 0.5})
    check("model.embed_tokens.weight", {"adapted": 0.2, "safe": 0.5}, density=each, **{"lambda": 0.5})


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 0.5, 1.0]])
def test_a_list_goes_along_the_layers(values: list[float]) -> None:
    """A straight line is the same line however many of its points are given."""
    for layer in range(5):
        assert at(values, Site("text", layer, "mlp.up"), 5) == pytest.approx(layer / 4)
    assert at(values, Site("text", None, "embed"), 5) == 0
    assert at(values, Site("text", None, "norm.final"), 5) == at(values, Site("text", None, "head"), 5) == 1
    assert at(0.3, Site("text", 2, "mlp.up"), 5) == 0.3


def test_a_list_as_long_as_the_layers_is_exact() -> None:
    values = [0.1, 0.7, 0.2, 0.9, 0.3, 0.8, 0.6]
    assert [at(values, Site("text", layer, "attn.q"), 7) for layer in range(7)] == values


def test_towers_that_are_not_named_stay(trio: "Trio", tmp_path: Path) -> None:
    paths = {"adapted": trio.adapted, "safety": trio.safety_native}
    checkpoints = {role: Checkpoint.open(path) for role, path in paths.items()}
    both = {"adapted": 0.5, "safety": 0.5}
    for key, moved in (("default", {"text"}), ("everywhere", {"text", "vision", "projector"}), ("vision", {"vision"})):
        recipe = Recipe.of(checkpoints, {key: both}, method="linear", like="adapted")
        run_merge(recipe, tmp_path / key)
        result, original = Checkpoint.open(tmp_path / key), checkpoints["adapted"]
        sites = identify(original.shapes, original.config)
        changed = {sites[name].tower for name in result if not torch.equal(result[name].load(), original[name].load())}
        assert changed == moved


def test_coefficients_of_0_give_the_base_where_it_is_not_like(family: Family) -> None:
    recipe = family.recipe("task_arithmetic", "adapted", coefficients={"1.mlp": {"adapted": 0.0}}, like="adapted")
    result = family.made(recipe)
    assert torch.equal(result[GATE.format(1)], family.tensors["base"][GATE.format(1)])
    assert torch.equal(result[GATE.format(0)], family.tensors["adapted"][GATE.format(0)])


def test_the_order_of_the_checkpoints_never_changes_a_byte(family: Family) -> None:
    recipe = family.recipe("dare_ties", parameters={"everywhere": {"density": 0.5}})
    backwards = recipe.model_copy(update={"checkpoints": dict(reversed(recipe.checkpoints.items()))})
    one, other = family.made(recipe), family.made(backwards, "other")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_another_dtype_is_rounded_once(tmp_path: Path, write: Write, llama: Llama, dtype: str) -> None:
    family = Family(tmp_path, write, llama, torch.float32)
    config = family.folder / "adapted" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "dtype": "float32"}))
    recipe = family.recipe("linear", "adapted", "safe", coefficients={"0": {"adapted": 1.0, "safe": 1.0}}, dtype=dtype)
    result = family.made(recipe)
    for name, tensor in result.items():
        one, other = family.tensors["adapted"][name], family.tensors["safe"][name]
        wanted = torch.lerp(one, other, 0.5) if ".0." in name else one
        assert torch.equal(tensor, wanted.to(getattr(torch, dtype)))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype


@pytest.mark.parametrize("where", ["adapted", "base"])
def test_nan_is_named(tmp_path: Path, write: Write, llama: Llama, where: str) -> None:
    broken = llama(1)
    broken[GATE.format(1)][3, 4] = float("nan")
    good = write(tmp_path / "good", llama(0))
    bad = write(tmp_path / "bad", broken)
    paths = {"base": bad, "adapted": good} if where == "base" else {"base": good, "adapted": bad}
    checkpoints = {role: Checkpoint.open(path) for role, path in paths.items()}
    for name in ("task_arithmetic", "ties", "slerp", "dare_ties", "breadcrumbs"):
        recipe = Recipe.of(checkpoints, {"default": {"adapted": 0.5}}, method=name, base="base", like="base")
        with pytest.raises(CheckpointError, match=rf"{where} .*{GATE.format(1)}: NaN or infinite"):
            run_merge(recipe, tmp_path / "out")


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"blend"}))
def test_models_of_several_dtypes(tmp_path: Path, write: Write, llama: Llama, name: str) -> None:
    """Everything is computed in float64 where one model is, and stored as `like` has it."""
    family = Family(tmp_path, write, llama, torch.float64)
    narrow = {role: torch.float32 if role == "base" else torch.bfloat16 for role in ("base", "unaligned")}
    for role, dtype in narrow.items():
        family.tensors[role] = {key: tensor.to(dtype) for key, tensor in family.tensors[role].items()}
        family.checkpoints[role] = Checkpoint.open(write(tmp_path / f"{role} again", family.tensors[role]))
    recipe = family.recipe(name, like="adapted")
    for tensor, made in family.made(recipe).items():
        wanted = family.expected(recipe, tensor, recipe.coefficients["everywhere"])
        torch.testing.assert_close(made.to(wanted.dtype), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("value", "dtype"), [(1e300, "float32"), (3.4e38, "bfloat16"), (1e5, "float16")])
def test_what_a_dtype_cannot_hold_is_told(tmp_path: Path, write: Write, llama: Llama, value: float, dtype: str) -> None:
    huge = {name: tensor.double() for name, tensor in llama(1).items()}
    huge[GATE.format(1)][3, 4] = value
    checkpoints = {role: Checkpoint.open(write(tmp_path / role, huge)) for role in ("a", "b")}
    recipe = Recipe.of(checkpoints, {"default": {"a": 0.5, "b": 0.5}}, method="linear", like="a", dtype=dtype)
    with pytest.raises(CheckpointError, match=rf"{GATE.format(1)}.*too large|{GATE.format(1)}.*--dtype"):
        run_merge(recipe, tmp_path / "out")


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a negative coefficient": ({"coefficients": {"default": {"adapted": -0.1}}}, "adapted: -0.1 is not 0 or more"),
    "no such parameter": ({"parameters": {"default": {"t": 0.5}}}, "default.t: the method has no such parameter"),
    "out of range": ({"parameters": {"default": {"density": 1.5}}}, "density: 1.5 is not between 0 and 1"),
    "a switch for a number": ({"parameters": {"default": {"density": True}}}, "density: True is not a number"),
    "a number for a switch": ({"parameters": {"default": {"normalize": 0.5}}}, "normalize: 0.5 is not true or false"),
    "no such model": ({"parameters": {"default": {"density": {"safe": 0.5}}}}, "'safe' is none of the models"),
    "not per model": ({"parameters": {"default": {"lambda": {"adapted": 1.0}}}}, "lambda: is the same for all models"),
    "an empty list": ({"coefficients": {"default": {"adapted": []}}}, "adapted: an empty list"),
    "no such key": ({"parameters": {"3.mpl": {"lambda": 1.0}}}, "parameter '3.mpl': no such key"),
    "a key that fits nothing": ({"parameters": {"9.mlp": {"lambda": 1.0}}}, "parameter 9.mlp: fits no tensor"),
    "no such base": ({"base": "mother"}, "base: 'mother' is none of the checkpoints"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_recipe_that_makes_no_sense_is_refused(tmp_path: Path, write: Write, llama: Llama, fault: str) -> None:
    family = Family(tmp_path, write, llama, torch.float32)
    fields, words = FAULTS[fault]
    with pytest.raises(RecipeError) as caught:
        run_merge(family.recipe("ties", "adapted", **fields), tmp_path / "out")
    assert words in str(caught.value)


def test_models_must_be_as_many_as_the_method_takes(tmp_path: Path, write: Write, llama: Llama) -> None:
    family = Family(tmp_path, write, llama, torch.float32)
    with pytest.raises(RecipeError, match="slerp merges 1 models beside the base, and there are 2"):
        family.recipe("slerp", "adapted", "safe")
    with pytest.raises(RecipeError, match="model_stock merges 2 or more models beside the base"):
        family.recipe("model_stock", "adapted")
    with pytest.raises(RecipeError, match="linear takes no deltas"):
        family.recipe("linear", "adapted", "safe", base="adapted")
    with pytest.raises(RecipeError, match=r"safe is 0\.5, and model_stock knows only 0 and 1"):
        family.recipe("model_stock", "adapted", "safe", coefficients={"0": {"adapted": 1.0, "safe": 0.5}})
    lonely = family.recipe("model_stock", "adapted", "safe", coefficients={"0": {"adapted": 1.0, "safe": 0.0}})
    with pytest.raises(RecipeError, match=r"text\.0\..* model_stock needs 2 models or more"):
        run_merge(lonely, tmp_path / "out")
    nothing = family.recipe("linear", "adapted", "safe", coefficients={"0": {"adapted": 0.0}})
    with pytest.raises(RecipeError, match="all coefficients are 0"):
        run_merge(nothing, tmp_path / "out")
