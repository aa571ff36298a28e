"""Classes of transformers, each with its base in both naming layouts: every pair and every delta comes back.

The sweep over all classes (tests/benchmarks/architectures.py) makes the trios: each entry of a base is a whole number
that occurs once, and the adapted model adds less than one half to it, so rounding an entry tells where it came from.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import transformers
from packaging.version import Version
from torch import Tensor

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff.run import diff
from vlsurgery.surgery.merge.coefficients import Coefficients
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]

# What is special about each, and the kind of base that shows it.
CLASSES = {
    "molmo2": "parent",  # q, k and v fused, gate and up fused the other way round
    "qwen3_vl_moe": "parent",  # experts one by one, stacked, and stacked transposed
    "mllama": "parent",  # inserted layers
    "lfm2_vl": "causal",  # layers that differ
    "paligemma": "causal",  # tied head
    "kimi_k25": "bare",  # rows in rotary pairs or in rotary halves
}
LATER = {"kimi_k25": "5.13", "molmo2": "5.20"}  # the version of transformers that has a class, above our lower bound


@pytest.fixture(scope="module")
def sweep() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "architectures.py"
    spec = importlib.util.spec_from_file_location("architectures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["architectures"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("layouts", [("legacy", "native"), ("native", "legacy")])
def test_planted_deltas_come_back(sweep: Any, name: str, layouts: tuple[str, str], shared: Path) -> None:
    if Version(transformers.__version__) < Version(LATER.get(name, "0")):
        pytest.skip(f"transformers has {name} from {LATER[name]} on")
    case = sweep.build(name, sweep.classes()[name], shared)
    kind, (base, adapted) = CLASSES[name], layouts
    paths = {
        "base": case.bases[kind][base],
        "adapted": case.adapted[f"{kind}/{adapted}"],
        "safety": case.safety[f"{kind}/{base}"],
    }
    score = sweep._score(name, paths)
    assert (score.verdict, score.problems) == ("perfect", [])
    checkpoints = {role: Checkpoint.open(path) for role, path in paths.items()}
    compared = [pair for pair in diff(align(checkpoints)).pairs if "base" in pair.names]
    assert compared
    for pair in compared:
        label = pair.names["adapted"]
        whole = checkpoints["adapted"][label if isinstance(label, str) else label.name].load()
        cuts = () if isinstance(label, str) else tuple(slice(*cut) for cut in label.slice)
        part = whole[cuts].double()
        assert pair.metrics.vl is not None
        expected = float((part - part.round()).norm() / part.round().norm())
        assert pair.metrics.vl.relative == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the classes' checkpoints are kept while the module's tests run."""
    torch.manual_seed(0)
    return tmp_path_factory.mktemp("architectures")


def test_the_original_llava_layout_diffs_and_merges(tmp_path: Path, write: Write, llama: Llama) -> None:
    """Its projector and vision tower lie beside the text stack, and transformers can't run it."""
    base, config = llama(1), {"num_hidden_layers": 2, "hidden_size": 16, "vocab_size": 40}
    own = {
        "model.mm_projector.0.weight": torch.randn(16, 12),
        "model.mm_projector.0.bias": torch.randn(16),
        "model.mm_projector.2.weight": torch.randn(16, 16),
        "model.vision_tower.vision_tower.vision_model.embeddings.class_embedding": torch.randn(12),
        **{
            f"model.vision_tower.vision_tower.vision_model.encoder.layers.{layer}.{module}.weight": torch.randn(12, 12)
            for layer in range(2)
            for module in ("self_attn.q_proj", "self_attn.k_proj", "mlp.fc1", "mlp.fc2")
        },
    }
    deltas = {name: 0.01 * (place + 1) * torch.randn(tensor.shape) for place, (name, tensor) in enumerate(base.items())}
    llava = {name: tensor + deltas[name] for name, tensor in base.items()} | own
    settings = {**config, "model_type": "llava_llama", "mm_vision_tower": "clip", "tie_word_embeddings": False}
    roles = {
        "base": Checkpoint.open(write(tmp_path / "base", base)),
        "adapted": Checkpoint.open(write(tmp_path / "llava", llava, settings)),
    }
    found = diff(align(roles))
    assert {pair.names["adapted"] for pair in found.pairs} == set(base)
    for pair in found.pairs:
        assert pair.names["adapted"] == pair.names["base"]
        name = str(pair.names["base"])
        assert pair.metrics.vl is not None
        assert pair.metrics.vl.relative == pytest.approx(float(deltas[name].norm() / base[name].norm()), rel=1e-4)
    assert {(tensor.role, tensor.name) for tensor in found.unmatched} == {("adapted", name) for name in own}
    run_merge(Recipe.of(roles, Coefficients({"default": {"base": 0.5}})), tmp_path / "merged")
    merged = Checkpoint.open(tmp_path / "merged")
    assert set(merged) == set(llava)
    for name, tensor in merged.items():
        expected = llava[name] - 0.5 * deltas[name] if name in deltas else llava[name]
        torch.testing.assert_close(tensor.load(), expected, atol=1e-6, rtol=1e-5)
