"""Tiny checkpoints, and a way to run the program inside of the test process."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner, Result

from vlsurgery.cli.main import app

torch.set_num_threads(1)

HIDDEN, LAYERS, VOCAB = 16, 2, 24
CONFIG = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCAB,
    "tie_word_embeddings": False,
}
Run = Callable[..., Result]


def tensors(seed: int, layers: int = LAYERS) -> dict[str, Tensor]:
    """The weights of a small Llama."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCAB, HIDDEN),
    }
    for layer in range(layers):
        stem = f"model.layers.{layer}"
        shapes |= {f"{stem}.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        shapes |= {f"{stem}.mlp.{part}_proj.weight": (20, HIDDEN) for part in ("gate", "up")}
        shapes[f"{stem}.mlp.down_proj.weight"] = (HIDDEN, 20)
        shapes |= {f"{stem}.{norm}_layernorm.weight": (HIDDEN,) for norm in ("input", "post_attention")}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(folder: Path, weights: Mapping[str, Tensor], **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(dict(weights), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def near(weights: Mapping[str, Tensor], seed: int, size: float = 0.05) -> dict[str, Tensor]:
    """Weights that were trained a little further."""
    generator = torch.Generator().manual_seed(seed)
    return {name: tensor + size * torch.randn(tensor.shape, generator=generator) for name, tensor in weights.items()}


@pytest.fixture
def trio(tmp_path: Path) -> dict[str, Path]:
    """Three checkpoints of one family: role -> directory."""
    base = tensors(0)
    adapted = near(base, 1)
    return {
        "base": write(tmp_path / "base", base),
        "adapted": write(tmp_path / "adapted", adapted),
        "safety": write(tmp_path / "safety", near(adapted, 2)),
    }


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A checkpoint that has nothing in common with the trio: other depth and width."""
    return write(tmp_path / "stranger", tensors(9, layers=3), num_hidden_layers=3)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program in an empty folder; whatever is not given as `--case` goes there."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def invoke(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke
