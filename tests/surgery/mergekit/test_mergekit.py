"""mergekit's YAML against a small reading of mergekit's own rules, and there and back. mergekit itself is not needed;
tests/benchmarks/mergekit_agreement.py runs it."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings, strategies as st
from safetensors.torch import load_file, save_file

from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError, RecipeError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.mergekit import load_recipe, read_mergekit, write_mergekit
from vlsurgery.surgery.mergekit.document import parse
from vlsurgery.surgery.mergekit.methods import KINDS, PER_MODEL, TAKEN
from vlsurgery.surgery.mergekit.reading import plain_table
from vlsurgery.surgery.methods import METHODS

WIDTH, LAYERS, VISION_LAYERS, VOCAB = 8, 4, 3, 20
FILE = Path("order.yaml")
FILTERS = (
    "self_attn",
    "mlp",
    "q_proj",
    "layernorm",
    "layers.1.",
    "embed_tokens",
    "lm_head",
    "weight",
    "norm",
    "*",
    None,
)

Data = dict[str, Any]


# What the models are


def text_shapes(stem: str, head: str, layers: int = LAYERS) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {f"{stem}embed_tokens.weight": (VOCAB, WIDTH), f"{stem}norm.weight": (WIDTH,)}
    for layer in range(layers):
        start = f"{stem}layers.{layer}."
        shapes |= {f"{start}self_attn.{part}_proj.weight": (WIDTH, WIDTH) for part in "qkvo"}
        shapes |= {f"{start}mlp.{part}_proj.weight": (12, WIDTH) for part in ("gate", "up")}
        shapes[f"{start}mlp.down_proj.weight"] = (WIDTH, 12)
        shapes |= {f"{start}{part}_layernorm.weight": (WIDTH,) for part in ("input", "post_attention")}
    return shapes | {f"{head}lm_head.weight": (VOCAB, WIDTH)}


def seeing_shapes() -> dict[str, tuple[int, ...]]:
    """A language model inside of one that sees; the towers share the names below their layers."""
    shapes = text_shapes("language_model.model.", "language_model.")
    stem = "vision_tower.vision_model."
    shapes[f"{stem}embeddings.patch_embedding.weight"] = (6, 3, 2, 2)
    for layer in range(VISION_LAYERS):
        start = f"{stem}encoder.layers.{layer}."
        shapes |= {f"{start}self_attn.{part}_proj.weight": (6, 6) for part in ("q", "k", "v", "out")}
        shapes |= {f"{start}mlp.fc{part}.weight": (6, 6) for part in (1, 2)}
        shapes |= {f"{start}layer_norm{part}.weight": (6,) for part in (1, 2)}
    return shapes | {
        f"multi_modal_projector.linear_{part}.weight": (WIDTH, 6 if part == 1 else WIDTH) for part in (1, 2)
    }


def save(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype = torch.float32, tokens: int = 3
) -> None:
    path.mkdir(parents=True)
    config = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "vocab_size": VOCAB, "tie_word_embeddings": False}
    nested = any(name.startswith("language_model.") for name in shapes)
    whole = {"model_type": "llava", "text_config": config} if nested else {"model_type": "llama", **config}
    (path / "config.json").write_text(json.dumps(whole))
    vocab = {f"t{number}": number for number in range(tokens)}
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}, "added_tokens": []}))
    save_file({name: torch.randn(shape).to(dtype) for name, shape in shapes.items()}, path / "model.safetensors")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    for kind, shapes in (("plain", text_shapes("model.", "")), ("seeing", seeing_shapes())):
        for name in ("b", "x", "y"):
            save(root / kind / name, shapes)
    save(root / "short", text_shapes("model.", "", layers=3))
    save(root / "half", text_shapes("model.", ""), torch.bfloat16)
    save(root / "native", text_shapes("model.language_model.", "model."))
    save(root / "other_tokens", text_shapes("model.", ""), tokens=4)
    larger = text_shapes("model.", "") | {
        "lm_head.weight": (VOCAB + 2, WIDTH),
        "model.embed_tokens.weight": (22, WIDTH),
    }
    save(root / "larger", larger)
    return root


def depths(sites: Mapping[str, Site]) -> dict[str, int]:
    return {
        tower: 1
        + max((site.layer for site in sites.values() if site.tower == tower and site.layer is not None), default=0)
        for tower in {site.tower for site in sites.values()}
    }


def resolved(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Raw name -> role or parameter -> value, as a merge resolves them."""
    like = Checkpoint.reopen(recipe.checkpoints[recipe.like])
    sites = identify(like.shapes, like.config)
    depth = depths(sites)
    found = {}
    for name, site in sites.items():
        flat: dict[str, Any] = dict(recipe.resolved_coefficients.resolve(site, depth[site.tower]))
        for parameter, value in recipe.resolved_parameters.resolve(site, depth[site.tower]).items():
            each = value if isinstance(value, dict) else {"": value}
            flat |= {f"{parameter} {role}": number for role, number in each.items()}
        found[name] = flat
    return found


def same(first: Mapping[str, Mapping[str, Any]], second: Mapping[str, Mapping[str, Any]]) -> None:
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert values == pytest.approx(second[name], rel=1e-9, abs=1e-12), name


# mergekit's rules, written down once more


def layer_of(name: str) -> tuple[int, int] | None:
    match = re.match(r"(.*?)\.(\d+)\.", name)
    if match is None:
        return None
    return int(match[2]), VISION_LAYERS if match[1].startswith("vision") else LAYERS


def by_their_rules(setting: Any, name: str) -> float | None:
    """The value of one setting at one tensor: a number, a gradient, or the first filter that fits."""
    if isinstance(setting, list) and setting and isinstance(setting[0], dict):
        for case in setting:
            if case.get("filter") in (None, "*") or case["filter"] in name:
                return by_their_rules(case["value"], name)
        return None
    if not isinstance(setting, list):
        return float(setting)
    layer = layer_of(name)
    t = 0.0 if layer is None else layer[0] / (layer[1] - 1)
    return float(np.interp(t * (len(setting) - 1), np.arange(len(setting)), setting))


def expected(data: Data, number: int, parameter: str, name: str) -> float:
    for scope in (data["models"][number].get("parameters", {}), data.get("parameters", {})):
        if parameter in scope and (value := by_their_rules(scope[parameter], name)) is not None:
            return value
    default = TAKEN[data["merge_method"]][parameter]
    assert default is not None
    return float(default)


numbers = st.floats(0, 1).map(lambda value: round(value, 3))
gradients = st.lists(numbers, min_size=1, max_size=6)
plain_settings = st.one_of(numbers, gradients)
filtered = st.lists(
    st.builds(lambda part, value: {"filter": part, "value": value}, st.sampled_from(FILTERS), plain_settings),
    min_size=1,
    max_size=4,
)
# The weight must be given, so its last filter fits everything.
weights = st.one_of(plain_settings, st.builds(lambda cases, rest: [*cases, {"value": rest}], filtered, plain_settings))


@st.composite
def orders(draw: st.DrawFn) -> Data:
    method = draw(st.sampled_from(["linear", "task_arithmetic", "ties", "breadcrumbs", "della_linear"]))
    each = sorted({*PER_MODEL} & set(TAKEN[method]) - {"weight", "epsilon"})
    some = st.dictionaries(st.sampled_from(each), st.one_of(plain_settings, filtered)) if each else st.just({})
    data: Data = {
        "merge_method": method,
        "models": [{"model": name, "parameters": {"weight": draw(weights), **draw(some)}} for name in ("x", "y")],
        "parameters": draw(some) | {"normalize": draw(st.booleans())},
        "dtype": "float32",
    }
    if draw(st.booleans()):
        del data["models"][1]["parameters"]["weight"]
        data["parameters"]["weight"] = draw(weights)
    return data | ({} if method == "linear" else {"base_model": "b", "parameters": data["parameters"]})


def placed(data: Data, folder: Path) -> Data:
    """The same with models that exist."""
    models = [{**entry, "model": str(folder / entry["model"])} for entry in data["models"]]
    base = {"base_model": str(folder / data["base_model"])} if "base_model" in data else {}
    return {**data, "models": models, **base}


# Laws


@pytest.mark.parametrize("kind", ["plain", "seeing"])
@settings(max_examples=25, deadline=None)
@given(data=orders())
def test_each_tensor_has_what_their_rules_give_it(models: Path, kind: str, data: Data) -> None:
    recipe = read_mergekit(placed(data, models / kind), FILE)
    for name, found in resolved(recipe).items():
        for number, role in enumerate("xy"):
            assert found[role] == pytest.approx(expected(data, number, "weight", name), rel=1e-9, abs=1e-12), name
            for parameter in {*PER_MODEL} & set(TAKEN[data["merge_method"]]) - {"weight"}:
                wanted = expected(data, number, parameter, name)
                assert found[f"{parameter} {role}"] == pytest.approx(wanted, rel=1e-9, abs=1e-12), (name, parameter)


@pytest.mark.parametrize("kind", ["plain", "seeing"])
@settings(max_examples=15, deadline=None)
@given(data=orders())
def test_there_and_back_every_tensor_has_the_same(models: Path, kind: str, data: Data) -> None:
    recipe = read_mergekit(placed(data, models / kind), FILE)
    if not any(found[role] for found in resolved(recipe).values() for role in "xy"):
        return
    text = write_mergekit(recipe)
    again = read_mergekit(yaml.safe_load(text), FILE)
    assert (again.method, again.dtype) == (recipe.method, recipe.dtype)
    # A model without any weight, and a base that only a weighted mean has, may come or go; the names of roles may too.
    names = {ref.path: role for role, ref in again.checkpoints.items()}
    renamed = {role: names.get(ref.path) for role, ref in recipe.checkpoints.items()}

    def of(values: dict[str, Any], roles: Mapping[str, str | None]) -> dict[str, Any]:
        moved = {
            " ".join(str(roles.get(word, word)) for word in key.split(" ")): value
            for key, value in values.items()
            if all(roles.get(word, word) is not None for word in key.split(" "))
        }
        return {key: value for key, value in moved.items() if value or " " in key}

    kept = {role: role for role in again.checkpoints}
    same(
        {name: of(values, renamed) for name, values in resolved(recipe).items()},
        {name: of(values, kept) for name, values in resolved(again).items()},
    )


sites = st.builds(
    lambda layer, part: Site("text", layer, part),
    st.integers(0, 2),
    st.sampled_from(["attn.q", "attn.o", "mlp.gate", "norm.attn", "raw:odd"]),
) | st.sampled_from(
    [Site("text", None, part) for part in ("embed", "head", "norm.final")]
    + [
        Site("text", None, "attn.q", 1),
        Site("vision", 0, "attn.q"),
        Site("vision", 1, "attn.q"),
        Site("projector", None, "raw:up"),
    ]
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(sites, st.tuples(st.sampled_from([0.0, 0.5, 0.7]), st.sampled_from([0.1, 0.3])), min_size=1))
def test_a_table_of_keys_says_what_each_site_says(values: dict[Site, tuple[float, float]]) -> None:
    from vlsurgery.surgery.merge.coefficients import Coefficients

    table = plain_table(values)  # type: ignore[arg-type]
    coefficients = Coefficients({key: dict(zip("xy", spelt, strict=True)) for key, spelt in table.items()})  # type: ignore[arg-type]
    depth = depths({site.key: site for site in values})
    for site, wanted in values.items():
        assert tuple(coefficients.resolve(site, depth[site.tower]).values()) == pytest.approx(wanted)


def test_what_is_said_in_one_line_stays_one_line(models: Path) -> None:
    data = order(models, "task_arithmetic", parameters={"weight": 0.5, "lambda": 0.7})
    recipe = read_mergekit(data, FILE)
    assert recipe.coefficients == {"everywhere": {"x": 0.5, "y": 0.5}}
    assert recipe.parameters == {"everywhere": {"normalize": False, "lambda": 0.7}}
    assert yaml.safe_load(write_mergekit(recipe))["parameters"] == {"normalize": False, "lambda": 0.7}


def order(models: Path, method: str = "ties", /, **changes: Any) -> Data:
    names = ("x",) if method == "slerp" else ("x", "y")
    data: Data = {"merge_method": method, "models": [{"model": str(models / "plain" / name)} for name in names]}
    if method != "linear":
        data["base_model"] = str(models / "plain" / "b")
    given = {"t": 0.5} if method == "slerp" else {} if method == "model_stock" else {"weight": 0.5}
    return {key: value for key, value in (data | {"parameters": given} | changes).items() if value is not None}


@pytest.mark.parametrize("method", sorted(TAKEN))
def test_every_method_of_both_tools_is_read_and_written(models: Path, method: str) -> None:
    recipe = read_mergekit(order(models, method), FILE)
    assert recipe.method == method
    assert recipe.like == recipe.origin or method == "linear"
    text = yaml.safe_load(write_mergekit(recipe))
    assert text["merge_method"] == method
    same(resolved(read_mergekit(text, FILE)), resolved(recipe)) if method != "linear" else None


# mergekit 0.1.5: method -> parameter -> default, None where a value must be given.
DELTAS: Data = {"weight": None, "lambda": 1.0}
THEIRS: dict[str, Data] = {
    "linear": {"weight": None, "normalize": True},
    "slerp": {"t": None},
    "model_stock": {"filter_wise": False},
    "task_arithmetic": {**DELTAS, "normalize": False},
    "ties": {**DELTAS, "normalize": True, "rescale": False, "density": 1.0},
    "dare_linear": {**DELTAS, "normalize": False, "rescale": True, "density": 1.0},
    "dare_ties": {**DELTAS, "normalize": False, "rescale": True, "density": 1.0},
    "della_linear": {**DELTAS, "normalize": False, "rescale": True, "density": 1.0, "epsilon": 0.15},
    "della": {**DELTAS, "normalize": True, "rescale": True, "density": 1.0, "epsilon": 0.15},
    "breadcrumbs": {**DELTAS, "normalize": False, "rescale": False, "density": 1.0, "gamma": 0.01},
    "breadcrumbs_ties": {**DELTAS, "normalize": False, "rescale": False, "density": 1.0, "gamma": 0.01},
}
MODELS: dict[str, tuple[int, int | None]] = {"slerp": (1, 1), "model_stock": (2, None)}


@pytest.mark.parametrize("method", sorted(TAKEN))
def test_parameters_of_both_tools_are_the_same_ones(method: str) -> None:
    theirs, ours = THEIRS[method], METHODS[method]
    assert TAKEN[method] == theirs
    assert ours.needs_base == (method != "linear")
    assert ours.models == MODELS.get(method, (1, None))
    assert set(ours.parameters) <= set(theirs)
    for name, parameter in ours.parameters.items():
        assert parameter.is_switch == (KINDS[name] is bool)
        assert parameter.per_model == (name in ("weight", "density", "gamma", "epsilon")) == (name in PER_MODEL)
        assert parameter.default == theirs[name]


def source(models: Path, name: str, layers: list[int], **parameters: Any) -> Data:
    return {"model": str(models / "plain" / name), "layer_range": layers, "parameters": parameters}


def test_slices_give_their_layers_their_values(models: Path) -> None:
    slices = [
        {"sources": [source(models, "x", [0, 3], weight=[0.0, 1.0]), source(models, "y", [0, 3], weight=0.25)]},
        {"sources": [source(models, "x", [3, 4], weight=[0.2, 0.6])], "parameters": {"weight": 0.9}},
    ]
    found = resolved(read_mergekit(order(models, "linear", models=None, slices=slices, parameters=None), FILE))
    mlp = [found[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in range(LAYERS)]
    assert [layer["x"] for layer in mlp] == pytest.approx([0.0, 0.5, 1.0, 0.6])
    assert [layer.get("y") for layer in mlp] == [0.25, 0.25, 0.25, None]
    # In front of the layers the first slice counts, behind them the last one; each at the start of its gradients.
    assert found["model.embed_tokens.weight"]["x"] == 0.0
    assert found["lm_head.weight"]["x"] == found["model.norm.weight"]["x"] == 0.2


def test_one_slice_of_all_layers_is_the_models_themselves(models: Path) -> None:
    t = [{"filter": "mlp", "value": [0, 0.3, 1]}, {"value": 0.5}]
    slices = [{"sources": [source(models, "b", [0, 4]), source(models, "x", [0, 4])]}]
    sliced = order(models, "slerp", models=None, slices=slices, parameters={"t": t})
    same(
        resolved(read_mergekit(sliced, FILE)),
        resolved(read_mergekit(order(models, "slerp", parameters={"t": t}), FILE)),
    )


@pytest.mark.parametrize(
    "reference",
    [
        lambda path: path,
        lambda path: {"model": path},
        lambda path: {"model": {"path": path}},
        lambda path: {"model": {"path": path}, "lora": None},
    ],
)
def test_a_model_is_spelt_in_their_ways(models: Path, reference: Any) -> None:
    path = str(models / "plain" / "x")
    recipe = read_mergekit(order(models, models=[{"model": reference(path)}]), FILE)
    assert next(ref.path for ref in recipe.checkpoints.values()) == path


def test_revisions_and_adapters_are_joined_to_their_models() -> None:
    data = {"model": {"path": "org/name", "revision": "v1"}, "lora": {"path": "org/lora"}}
    document = parse({"merge_method": "linear", "models": [{"model": data}, {"model": "a@v2+b"}]})
    assert document.models == ["org/name@v1+org/lora", "a@v2+b"]


def test_models_of_one_name_have_roles_of_their_own(models: Path) -> None:
    paths = [models / "plain" / "x", models / "seeing" / "x"]
    recipe = read_mergekit(order(models, "linear", models=[{"model": str(path)} for path in paths]), FILE)
    assert list(recipe.checkpoints) == ["x", "x-2"]


def test_a_model_called_base_is_not_the_base(models: Path, tmp_path: Path) -> None:
    save(tmp_path / "base", text_shapes("model.", ""))
    recipe = read_mergekit(order(models, models=[{"model": str(tmp_path / "base")}]), FILE)
    assert (list(recipe.checkpoints), recipe.base) == (["base-2", "base"], "base")


def test_a_sign_that_splits_references_is_kept_whole(models: Path, tmp_path: Path) -> None:
    odd = tmp_path / "x@1+2"
    save(odd, text_shapes("model.", ""))
    recipe = read_mergekit(order(models, models=[{"model": {"model": {"path": str(odd)}}}]), FILE)
    assert yaml.safe_load(write_mergekit(recipe))["models"][0]["model"] == {"model": {"path": str(odd)}}


def test_the_result_is_stored_as_they_would(models: Path) -> None:
    half = [{"model": str(models / "half")}]

    def dtype(**changes: Any) -> str:
        return read_mergekit(order(models, **changes), FILE).dtype

    assert dtype() == "as like"
    assert dtype(dtype="float16", out_dtype="bfloat16") == "bfloat16"
    assert dtype(dtype="torch.float16") == "float16"
    assert dtype(models=half) == "as like"
    assert dtype(models=[{"model": str(models / "plain" / "x")}], base_model=str(models / "half")) == "float32"


def test_blend_becomes_task_arithmetic_from_the_adapted_model(models: Path) -> None:
    checkpoints = {
        role: Checkpoint.open(models / "seeing" / name) for role, name in (("adapted", "b"), ("safety", "x"))
    }
    table = {"default": {"safety": [0.1, 0.5]}, "2.mlp": {"safety": 0.75}, "head": {"safety": 0.2}}
    recipe = Recipe.of(checkpoints, table)
    again = read_mergekit(yaml.safe_load(write_mergekit(recipe)), FILE)
    assert (again.method, again.like, again.base) == ("task_arithmetic", "base", "base")
    wanted = {name: values.get("safety", 0.0) for name, values in resolved(recipe).items()}
    assert {name: values["x"] for name, values in resolved(again).items()} == pytest.approx(wanted)


def test_a_file_is_read_as_what_it_is(models: Path, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    theirs.write_text(yaml.safe_dump(order(models, parameters={"weight": [0.1, 0.4, 0.2]})))
    recipe = load_recipe(theirs)
    recipe.save(ours)
    assert load_recipe(ours) == recipe
    theirs.write_text(yaml.safe_dump({**order(models), "schema": "vlsurgery/recipe/1"}))
    with pytest.raises(RecipeError, match=r"theirs\.yaml: checkpoints"):
        load_recipe(theirs)


def test_pickled_weights_take_leave_whatever_a_recipe_says(models: Path, tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.yaml", tmp_path / "ours.yaml"
    theirs.write_text(yaml.safe_dump(order(models, parameters={"weight": [0.1, 0.4, 0.2]})))
    recipe = load_recipe(theirs)
    role = recipe.like
    whole = yaml.safe_load(recipe.text())
    whole["checkpoints"][role]["pickled"] = True
    ours.write_text(yaml.safe_dump(whole))
    with pytest.raises(RecipeError, match=rf"ours\.yaml: checkpoints\.{role}: .*pickled.*Give --allow-pickle"):
        load_recipe(ours)
    assert load_recipe(ours, allow_pickle=True).checkpoints[role].pickled


def test_models_of_mergekit_with_pickled_weights_are_read_where_allowed(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models, tmp_path / "models")
    folder = Path(order(tmp_path / "models")["models"][1]["model"])
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    file = tmp_path / "theirs.yaml"
    file.write_text(yaml.safe_dump(order(tmp_path / "models", parameters={"weight": [0.1, 0.4, 0.2]})))
    with pytest.raises(CheckpointError, match="--allow-pickle"):
        load_recipe(file)
    refs = load_recipe(file, allow_pickle=True).checkpoints.values()
    assert [Path(ref.path).name for ref in refs if ref.pickled] == [folder.name]


# Refusals


FAULTS: list[tuple[Data, str]] = [
    ({"name": "mine"}, "name: no such key"),
    ({"modules": {}}, "modules: "),
    ({"chat_template": "auto"}, "chat_template: "),
    ({"merge_method": "karcher"}, "merge_method: 'karcher'"),
    ({"merge_method": "passthrough"}, "merge_method: 'passthrough'"),
    ({"merge_method": None}, "merge_method: 'None'"),
    ({"base_model": None}, "base_model: missing"),
    ({"slices": []}, "models, slices: give one"),
    ({"models": None}, "models, slices: give one"),
    ({"models": []}, "models: expected a list"),
    ({"parameters": {"weight": 1, "wieght": 1}}, "parameters.wieght: 'wieght' is no parameter"),
    ({"parameters": {"weight": 1, "gamma": 0.1}}, "parameters.gamma: 'gamma' has no effect there"),
    ({"parameters": {"weight": 1, "rescale": True}}, "parameters.rescale: ties with rescale: true"),
    ({"parameters": {"weight": "much"}}, "parameters.weight: expected a number, found 'much'"),
    ({"parameters": {"weight": float("nan")}}, "not a finite number"),
    ({"parameters": {"weight": []}}, "parameters.weight: an empty list"),
    ({"parameters": {"weight": 1, "normalize": 2}}, "parameters.normalize: expected true or false"),
    ({"parameters": {"weight": {"filter": "mlp", "value": 1, "as": 2}}}, "parameters.weight.as: no such key"),
    ({"parameters": {"weight": [{"filter": "mlp"}]}}, "parameters.weight[0].value: missing"),
    ({"parameters": {"weight": [{"value": 1}, 0.5]}}, "parameters.weight[1]: expected `filter` and `value`"),
    ({"parameters": {"weight": [{"filter": 3, "value": 1}]}}, "parameters.weight[0].filter: expected a part"),
    ({"parameters": {"weight": [{"filter": "w1", "value": 1}, {"value": 1}]}}, "filter 'w1' is in no tensor's name"),
    ({"parameters": {"weight": {"filter": "mlp", "value": 1}}}, "weight: missing for tensor 'lm_head.weight'"),
    ({"parameters": {"weight": -0.5}}, "-0.5"),
    ({"dtype": "float64"}, "dtype: 'float64'"),
    ({"out_dtype": "int8"}, "out_dtype: 'int8'"),
    ({"tokenizer_source": "union"}, "tokenizer_source: 'union'"),
    ({"tokenizer": {"source": "union"}}, "tokenizer.source: 'union'"),
    ({"tokenizer": {}}, "tokenizer.source: 'union'"),
    ({"tokenizer": {"source": "base", "tokens": {"a": {}}}}, "tokenizer.tokens: "),
    ({"tokenizer": {"source": "base", "pad_to_multiple_of": 8}}, "tokenizer.pad_to_multiple_of: "),
    ({"tokenizer": {"source": "base"}, "tokenizer_source": "base"}, "give one of them"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_what_cannot_be_carried_over_is_named(models: Path, changes: Data, words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_mergekit(order(models, **changes), FILE)
    assert str(caught.value).startswith(f"{FILE}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"model": {"path": "P", "revison": "v"}}, "models[0].model.model.revison: no such key"),
        ({"model": "P", "override_architecture": "X"}, "models[0].model.override_architecture: can't be carried"),
        ({"lora": "P"}, "models[0].model.model: expected"),
        (3, "models[0].model: expected"),
        (None, "models[0].model: expected"),
    ],
)
def test_a_reference_that_is_none_is_named(models: Path, model: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(words)):
        read_mergekit(order(models, models=[{"model": model}]), FILE)


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [("x", "lambda", 0.5), ("x", "normalize", True), ("b", "weight", 1.0), ("b", "density", 0.5)],
)
def test_a_parameter_that_would_have_no_effect_where_it_stands_is_named(
    models: Path, where: str, name: str, value: Any
) -> None:
    entries = [{"model": str(models / "plain" / each), "parameters": {}} for each in ("b", "x", "y")]
    entries["bx".index(where)]["parameters"] = {name: value}
    with pytest.raises(RecipeError, match=rf"models\[\d\]\.parameters\.{name}: '{name}' has no effect there"):
        read_mergekit(order(models, models=entries), FILE)


@pytest.mark.parametrize(
    ("method", "names", "words"),
    [
        ("slerp", ["b", "x", "y"], "slerp takes 1 models beside its base, found 2"),
        ("slerp", ["b"], "found 0"),
        ("model_stock", ["x"], "model_stock takes 2 or more models beside its base, found 1"),
        ("ties", ["x", "x"], "named twice"),
    ],
)
def test_too_few_or_too_many_models_are_counted(models: Path, method: str, names: list[str], words: str) -> None:
    entries = [{"model": str(models / "plain" / name)} for name in names]
    with pytest.raises(RecipeError, match=words):
        read_mergekit(order(models, method, models=entries), FILE)


def test_a_switch_that_only_they_have_is_named(models: Path) -> None:
    with pytest.raises(RecipeError, match=r"parameters\.filter_wise: model_stock with filter_wise: true"):
        read_mergekit(order(models, "model_stock", parameters={"filter_wise": True}), FILE)
    off = read_mergekit(order(models, "model_stock", parameters={"filter_wise": False, "int8_mask": True}), FILE)
    assert off.parameters == {}


@pytest.mark.parametrize(
    ("ranges", "words"),
    [
        ([[0, 2], [3, 4]], r"slices\[1\]: layers \[3, 4\] where 2 comes next"),
        ([[0, 2], [1, 4]], r"slices\[1\]: layers \[1, 4\] where 2 comes next"),
        ([[2, 4], [0, 2]], r"slices\[0\]: layers \[2, 4\] where 0 comes next"),
        ([[0, 3]], r"slices\[0\]: ends at layer 3 of 4"),
        ([[0, 5]], r"slices\[0\]: ends at layer 5 of 4"),
        ([[0, 4.5]], r"layer_range: expected"),
        ([None], r"layer_range: expected \[first, behind the last\], found None"),
    ],
)
def test_slices_that_move_or_drop_layers_are_named(models: Path, ranges: list[Any], words: str) -> None:
    slices = [{"sources": [source(models, name, layers) for name in ("b", "x")]} for layers in ranges]
    with pytest.raises(RecipeError, match=words):
        read_mergekit(order(models, models=None, slices=slices), FILE)


def test_slices_that_pair_other_layers_or_models_are_named(models: Path) -> None:
    shifted = [{"sources": [source(models, "b", [0, 4]), source(models, "x", [1, 5])]}]
    with pytest.raises(RecipeError, match=r"slices\[0\].sources\[1\].layer_range: layers \[1, 5\]"):
        read_mergekit(order(models, models=None, slices=shifted), FILE)
    baseless = [{"sources": [source(models, "x", [0, 4])]}]
    with pytest.raises(RecipeError, match=r"slices\[0\]: base_model .* is not among the sources"):
        read_mergekit(order(models, models=None, slices=baseless), FILE)
    halves = [{"sources": [source(models, "b", each), source(models, name, each)]} for name, each in
              (("x", [0, 2]), ("y", [2, 4]))]  # fmt: skip
    with pytest.raises(RecipeError, match="slerp needs the same models in every slice"):
        read_mergekit(order(models, "slerp", models=None, slices=halves), FILE)
    other = [{"sources": [source(models, "x", [0, 4])], "base_model": "elsewhere"}]
    with pytest.raises(RecipeError, match=r"slices\[0\].base_model: all slices share one base"):
        read_mergekit(order(models, models=None, slices=other), FILE)
    towers = [{"sources": [{"model": str(models / "seeing" / name), "layer_range": [0, 4]} for name in ("b", "x")]}]
    with pytest.raises(RecipeError, match=r"has layers in .*give `models` with filters"):
        read_mergekit(order(models, models=None, slices=towers, base_model=str(models / "seeing" / "b")), FILE)


def test_a_tokenizer_is_the_results_own_or_named(models: Path) -> None:
    assert read_mergekit(order(models, tokenizer_source="base"), FILE).like == "base"
    own = {"source": str(models / "plain" / "b"), "tokens": {}}
    assert read_mergekit(order(models, tokenizer=own), FILE).like == "base"
    with pytest.raises(RecipeError, match=r"tokenizer_source: .* can't be carried over"):
        read_mergekit(order(models, tokenizer_source=str(models / "plain" / "x")), FILE)
    strange = [{"model": str(models / "other_tokens")}]
    with pytest.raises(RecipeError, match=r"the vocabulary of .*other_tokens is not that of"):
        read_mergekit(order(models, models=strange, tokenizer_source="base"), FILE)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ("short", "x has no tensor 'model.layers.3."),
        ("native", "x has no tensor 'lm_head.weight'"),
        ("larger", r"has shape \(22, 8\) in x and \(20, 8\) in base; mergekit wants one shape"),
    ],
)
def test_tensors_that_they_cannot_pair_are_named(models: Path, other: str, words: str) -> None:
    recipe = read_mergekit(order(models, models=[{"model": str(models / "plain" / "x")}]), FILE)
    strange = Checkpoint.open(models / other).ref_model
    with pytest.raises(RecipeError, match=words):
        write_mergekit(recipe.model_copy(update={"checkpoints": {**recipe.checkpoints, "x": strange}}))


def test_orders_that_they_do_not_know_are_named(models: Path) -> None:
    checkpoints = {name: Checkpoint.open(models / "plain" / name) for name in ("b", "x", "y")}
    whole = {"everywhere": {"x": 1.0, "y": 1.0}}

    def written(table: Any = whole, **fields: Any) -> str:
        return write_mergekit(Recipe.of(checkpoints, table, **{"like": "b", "base": "b", **fields}))

    with pytest.raises(RecipeError, match="like: 'x'; mergekit's result is like the base"):
        written(method="ties", like="x")
    assert len(yaml.safe_load(written(table={"everywhere": {"x": 0.0}}, method="ties"))["models"]) == 2
    with pytest.raises(RecipeError, match=r"takes every model whole, 'model\.embed_tokens\.weight' too"):
        written(table={**whole, "embed": {"x": 0.0, "y": 0.0}}, method="model_stock")
    for method in sorted(set(METHODS) - set(TAKEN) - {"blend"}):
        slots = METHODS[method].named_inputs
        roles = ["b", *(slots or ["x", "y"])]
        opened = dict.fromkeys(roles, checkpoints["x"]) | {"b": checkpoints["b"]}
        recipe = Recipe.of(opened, {"everywhere": {roles[1]: 1.0}}, like="b", base="b", method=method)
        with pytest.raises(RecipeError, match=f"mergekit 0.1.5 has no '{method}'"):
            write_mergekit(recipe)


def test_dtypes_that_they_would_make_one_are_named(models: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    save(mixed, text_shapes("model.", ""), torch.bfloat16)
    tensors = {name: tensor.load() for name, tensor in Checkpoint.open(mixed).items()}
    tensors["model.norm.weight"] = tensors["model.norm.weight"].float()
    save_file(tensors, mixed / "model.safetensors")
    half = [{"model": str(models / "half")}]
    # As a child, of the base's dtype but for one tensor: theirs would have two dtypes, those of `like` are one.
    with pytest.raises(RecipeError, match=r"dtype: missing; the models store 'model\.norm\.weight'"):
        read_mergekit(order(models, models=[{"model": str(mixed)}], base_model=str(models / "half")), FILE)
    recipe = read_mergekit(order(models, models=half, base_model=str(mixed)), FILE)
    assert recipe.dtype == "as like"
    with pytest.raises(RecipeError, match=r"dtype: base stores 'model\.norm\.weight' as float32 and most as bfloat16"):
        write_mergekit(recipe)
    stated = read_mergekit(order(models, models=half, base_model=str(mixed), dtype="float32"), FILE)
    assert yaml.safe_load(write_mergekit(stated))["out_dtype"] == "float32"
