"""Headers, configs and indexes with anything in them: what opens is right, and the rest is one line."""

import copy
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.numpy import load_file, save_file

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.anatomy import describe
from vlsurgery.surgery.errors import AlignmentError, SurgeryError

# One folder serves all examples of a test. How many there are is the profile's to say.
ANY_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

CONFIG: Final = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "tie_word_embeddings": False,
    "image_token_index": 7,
    "quantization_config": None,
    "text_config": {"model_type": "llama", "hidden_size": 4, "num_hidden_layers": 2, "vocab_size": 8},
    "vision_config": {"model_type": "clip_vision_model", "hidden_size": 4, "num_hidden_layers": 1},
}
LAYERS: Final = [f"language_model.model.layers.{layer}" for layer in range(2)]
NAMES: Final = (
    *(f"{stem}.self_attn.{part}_proj.weight" for stem in LAYERS for part in "qkvo"),
    *(f"{stem}.mlp.{part}_proj.weight" for stem in LAYERS for part in ("gate", "up", "down")),
    *(f"{stem}.{norm}_layernorm.weight" for stem in LAYERS for norm in ("input", "post_attention")),
    "language_model.model.norm.weight",
    "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
)
WEIGHTS: Final = {
    **{name: np.full((4,) if "norm" in name else (4, 4), at, np.float32) for at, name in enumerate(NAMES)},
    "language_model.model.embed_tokens.weight": np.arange(32, dtype=np.float32).reshape(8, 4),
    "language_model.lm_head.weight": np.ones((8, 4), np.float16),
}
PARTS: Final = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")

# What a value may become: other kinds, huge, tiny, deep, and text that leads elsewhere.
HOSTILE: Final = (
    None, True, 0, -1, 1 << 70, 1e308, float("inf"), float("nan"), "", "..", "../" + PARTS[0], "/etc/passwd",
    "\0", "\ud800", "x" * 400, "\x1b[2J", [], {}, [[[[]]]], [None], {"": None}, {"a": {"a": []}}, PARTS[0], "F64",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


def lay_out(folder: Path) -> dict[str, str]:
    """A good checkpoint in two shards; its index."""
    names = sorted(WEIGHTS)
    weight_map = {name: PARTS[at % 2] for at, name in enumerate(names)}
    for part in PARTS:
        save_file({name: WEIGHTS[name] for name in names if weight_map[name] == part}, folder / part)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something lies in a JSON value, the value itself included."""
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


def spoil(data: st.DataObject, value: Any) -> Any:
    """`value` with up to three parts replaced, removed, renamed or doubled."""
    value = json.loads(json.dumps(value))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(value))))
        other = copy.deepcopy(data.draw(st.sampled_from(HOSTILE)))
        if not path:
            if data.draw(st.integers(0, 9)) == 0:
                return other
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        match data.draw(st.sampled_from(["replace", "remove", "rename"])):
            case "replace":
                holder[path[-1]] = other
            case "remove":
                del holder[path[-1]]
            case "rename" if isinstance(holder, dict):
                holder[other if isinstance(other, str) else str(other)] = holder.pop(path[-1])
    return value


def damage(data: st.DataObject, content: bytes) -> bytes:
    """`content` with up to three bytes or stretches changed."""
    spoiled = bytearray(content)
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(spoiled)))
        spoiled[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    return bytes(spoiled)


def read_all(folder: Path) -> dict[str, Any] | None:
    """Every tensor of a checkpoint, or None where it is refused by one line."""
    try:
        held = Checkpoint.open(folder)
        describe(held)
        found = {name: tensor.load().numpy() for name, tensor in held.items() if tensor.safetensors_dtype != "BF16"}
    except SurgeryError as error:
        refusal, names_no_file = str(error), isinstance(error, AlignmentError)
    else:
        assert len(held.identity) > 10
        assert all(file.is_relative_to(folder) for file in held.companions.values())
        return found
    assert len(refusal.splitlines()) == 1, refusal
    assert len(refusal) < 1500, refusal
    # The search for the text stack knows names and shapes, and no file.
    assert names_no_file or str(folder) in refusal, refusal
    return None


@ANY_FOLDER
@given(st.data())
def test_a_spoiled_config_changes_no_weight(folder: Path, data: st.DataObject) -> None:
    lay_out(folder)
    text = json.dumps(spoil(data, CONFIG)).encode()
    (folder / "config.json").write_bytes(damage(data, text))
    found = read_all(folder)
    if found is not None:
        assert all(np.array_equal(found[name], tensor) for name, tensor in WEIGHTS.items())


@ANY_FOLDER
@given(st.data())
def test_a_spoiled_index_gives_the_weights_of_its_files_or_none(folder: Path, data: st.DataObject) -> None:
    weight_map = lay_out(folder)
    text = json.dumps(spoil(data, {"metadata": {"total_size": 208}, "weight_map": weight_map})).encode()
    (folder / "model.safetensors.index.json").write_bytes(damage(data, text))
    found = read_all(folder)
    if found is not None:
        assert found.keys() <= WEIGHTS.keys()
        assert all(np.array_equal(tensor, WEIGHTS[name]) for name, tensor in found.items())


@ANY_FOLDER
@given(st.data())
def test_a_spoiled_header_is_read_as_the_format_says_or_refused(folder: Path, data: st.DataObject) -> None:
    lay_out(folder)
    (folder / "model.safetensors.index.json").unlink()
    for part in PARTS:
        (folder / part).unlink()
    whole = folder / "model.safetensors"
    save_file(WEIGHTS, whole)
    content = whole.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    text = json.dumps(spoil(data, json.loads(content[8 : 8 + length]))).encode()
    claimed = data.draw(st.sampled_from([len(text)] * 6 + [0, len(text) - 1, 1 << 40, (1 << 64) - 1]))
    whole.write_bytes(struct.pack("<Q", max(0, claimed)) + damage(data, text) + content[8 + length :])
    try:
        found = read_all(folder)
        if found is not None:
            expected = load_file(whole)
            assert all(np.array_equal(tensor, expected[name], equal_nan=True) for name, tensor in found.items())
    finally:
        whole.unlink()


def test_the_unspoiled_one_opens(folder: Path) -> None:
    lay_out(folder)
    found = read_all(folder)
    assert found is not None
    assert found.keys() == WEIGHTS.keys()
    assert torch.from_numpy(found["language_model.model.embed_tokens.weight"]).sum() == 496
