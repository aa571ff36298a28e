"""A merge takes along what a model needs to be loaded and used, and nothing else that lies there."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.companions import companions, is_allowed
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.merge.recipe import Recipe
from vlsurgery.surgery.merge.run import run_merge

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]

NEEDED = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "vocab.bpe", "tokenizer.model", "tokenizer.model.v3", "tekken.json", "qwen.tiktoken",
    "spiece.model", "sentencepiece.bpe.model", "generation_config.json", "preprocessor_config.json",
    "processor_config.json", "video_preprocessor_config.json", "chat_template.jinja", "chat_template.json",
    "additional_chat_templates/tool_use.jinja", "LICENSE", "LICENSE.txt", "license-model.md", "NOTICE", "USE_POLICY.md",
)  # fmt: skip
LEFTOVERS = (
    "optimizer.pt", "optimizer.bin", "optimizer_0/__0_0.distcp", "pytorch_model_fsdp_0/.metadata", "scheduler.pt",
    "rng_state_0.pth", "training_args.bin", "trainer_state.json", "all_results.json", "train.log",
    "runs/events.out.tfevents.1", "wandb/run.json", "global_step10/mp_rank_00_model_states.pt", "latest",
    "zero_to_fp32.py", "onnx/model.onnx_data", "model.onnx", "openvino_model.xml", "tf_model.h5", "flax_model.msgpack",
    "rust_model.ot", "original/consolidated.00.pth", "consolidated.safetensors", "params.json", "model.gguf",
    "model-00001-of-00002.safetensors.incomplete", "model.safetensors.partial", "model.safetensors.index.json.bak",
    "model-00007-of-00009.safetensors", "pytorch_model.bin", "adapter_config.json", "adapter_model.safetensors",
    "quantize_config.json", "__pycache__/x.pyc", "modeling_odd.py", "setup.py", "notes.txt", ".cache/huggingface/x",
    "license.json", "backup/config.json", "backup/tokenizer.json", "vocab.json/inner", "mm_projector.bin",
    "vocab.py", "vocab.pkl", "vocab.bin", "vocab.npy", "vocab.txt.swp", "tokenizer.model.vault",
    "tokenizer.model.v3.part", "tokenizer.model.v3.key", "license_key.txt", "LICENSE-secret.txt", "id_rsa", ".env",
    "credentials.json", "tokenizer.json.bak", "tokenizer.json~", "config.json.orig", "._config.json",
)  # fmt: skip


def put(folder: Path, *names: str, text: str = "{}") -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.mark.parametrize("name", NEEDED)
def test_what_a_model_needs_is_taken_along(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    assert companions(tmp_path) == {name: tmp_path / name}


@pytest.mark.parametrize("name", LEFTOVERS)
def test_what_lies_there_otherwise_stays(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    assert companions(tmp_path) == {}


def test_every_file_of_a_tokenizer_of_transformers_is_allowed() -> None:
    models = Path(pytest.importorskip("transformers").__file__).parent / "models"
    tables = [
        table
        for file in models.glob("*/tokenization_*.py")
        for table in re.findall(r"^VOCAB_FILES_NAMES = \{(.*?)\}", file.read_text(encoding="utf-8"), re.M | re.S)
    ]
    names = {name for table in tables for name in re.findall(r':\s*"([\w.-]+)"', table)}
    assert len(names) > 10
    assert [name for name in sorted(names) if not is_allowed(name)] == []


def test_a_merge_holds_nothing_of_the_leftovers_and_says_so(tmp_path: Path, write: Write, llama: Llama) -> None:
    like, other = write(tmp_path / "like", llama(1)), write(tmp_path / "other", llama(2))
    put(like, "tokenizer.json", "LICENSE", "optimizer_0/__0_0.distcp", "trainer_state.json", "weights.onnx_data")
    opened = {"like": Checkpoint.open(like), "other": Checkpoint.open(other)}
    made = run_merge(Recipe.of(opened, {"default": {"other": 0.5}}, like="like"), tmp_path / "out")
    held = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    ours = {"README.md", "SHA256SUMS", "recipe.yaml", "model.safetensors"}
    assert held == ours | {"config.json", "tokenizer.json", "LICENSE"}
    (told,) = [note for note in made.notes if "not copied" in note]
    assert told.endswith(": optimizer_0/, trainer_state.json, weights.onnx_data.")


def test_links_are_followed_into_a_cache_alone(tmp_path: Path) -> None:
    folder, blobs = tmp_path / "models--a--b" / "snapshots" / "c", tmp_path / "models--a--b" / "blobs"
    put(folder, "tokenizer.json")
    put(blobs, "1234")
    (folder / "vocab.json").symlink_to(blobs / "1234")
    assert list(companions(folder)) == ["tokenizer.json", "vocab.json"]
    put(tmp_path, "secret")
    (folder / "LICENSE").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"LICENSE: a link out of the checkpoint, to .*secret"):
        companions(folder)
    (tmp_path / "secret").unlink()
    with pytest.raises(CheckpointError, match=r"LICENSE: a link to nothing\. Download it again\."):
        companions(folder)
    (folder / "LICENSE").unlink()
    (folder / "optimizer.pt").symlink_to(tmp_path / "nowhere")
    assert list(companions(folder)) == ["tokenizer.json", "vocab.json"]


def test_python_is_taken_where_a_config_declares_it_with_what_it_imports(tmp_path: Path) -> None:
    put(tmp_path, "modeling_x.py", text="from .parts import A\n    from . import (more, yet)\nfrom torch import nn\n")
    put(tmp_path, "parts.py", text="from .deep.down import B\n")
    put(tmp_path, "deep/down.py", text="from .beside import C\n")
    put(tmp_path, "deep/beside.py", "more.py", "train.py", "other_repo.py", text="import os\n")
    config = {
        "auto_map": {
            "AutoModel": "modeling_x.X",
            "AutoTokenizer": [None, "absent.T"],
            "AutoConfig": "a/b--other_repo.Y",
        }
    }
    put(tmp_path, "config.json", text="{}")
    assert list(companions(tmp_path)) == ["config.json"]
    put(tmp_path, "config.json", text=json.dumps(config))
    assert list(companions(tmp_path)) == [
        "config.json", "deep/beside.py", "deep/down.py", "modeling_x.py", "more.py", "parts.py",
    ]  # fmt: skip
    for hostile in ("../../etc.X", "/etc/x.X", "a/../b.X", "", "x", 7, {"a": "modeling_x.X"}):
        put(tmp_path, "config.json", text=json.dumps({"auto_map": {"AutoModel": hostile}}))
        assert list(companions(tmp_path)) == ["config.json"]


@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_an_index_of_weights_is_no_leftover(tmp_path: Path, write: Write, llama: Llama, index: str) -> None:
    path = write(tmp_path / "c", llama())
    put(path, index, "notes.txt")
    assert Checkpoint.open(path).left_behind == ["notes.txt"]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "chat_template.jinja"])
def test_a_pointer_in_place_of_a_tokenizer_is_not_copied(tmp_path: Path, name: str) -> None:
    put(tmp_path, name, text=f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 1000\n")
    with pytest.raises(CheckpointError, match=rf"{name}: a Git LFS pointer.*git lfs pull"):
        companions(tmp_path)
