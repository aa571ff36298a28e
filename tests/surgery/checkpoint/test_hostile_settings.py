"""Settings files that are no files, have no end or order code: one line each, at once."""

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import Tensor, zeros

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError

Write = Callable[..., Path]
Llama = Callable[..., dict[str, Tensor]]
ADAPTER = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}


def refused(ref: str | Path, **options: Any) -> str:
    began = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.open(ref, **options)
    assert time.monotonic() - began < 5
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.fixture
def adapted(tmp_path: Path, write: Write, llama: Llama) -> Path:
    """A base and an adapter on it; the adapter's directory."""
    write(tmp_path / "base", llama())
    (tmp_path / "adapter").mkdir()
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    factors = {f"{stem}.lora_A.weight": zeros(2, 16), f"{stem}.lora_B.weight": zeros(16, 2)}
    save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(ADAPTER))
    assert Checkpoint.open(f"{tmp_path / 'base'}+{tmp_path / 'adapter'}")
    return tmp_path / "adapter"


def pipe(file: Path) -> str:
    os.mkfifo(file)
    return "not a regular file"


def endless(file: Path) -> str:
    file.symlink_to("/dev/zero")
    return "not a regular file"


def enormous(file: Path) -> str:
    with file.open("wb") as opened:
        opened.truncate(1 << 40)
    return "the most that is read"


def nested(file: Path) -> str:
    file.write_text('{"a":' * 200_000)
    return "not valid JSON"


def deep(file: Path) -> str:
    file.write_text(json.dumps(ADAPTER)[:-1] + ', "x": ' + "[" * 500 + "]" * 500 + "}")
    return "nested deeper than"


@pytest.mark.parametrize("spoil", [pipe, endless, enormous, nested, deep])
@pytest.mark.parametrize("name", ["adapter_config.json", "config.json"])
def test_settings_without_end_are_one_line(adapted: Path, name: str, spoil: Callable[[Path], str]) -> None:
    home = adapted if name.startswith("adapter") else adapted.parent / "base"
    (home / name).unlink()
    said = spoil(home / name)
    found = refused(f"{adapted.parent / 'base'}+{adapted}")
    assert said in found or "no config.json" in found  # what is no file counts as absent there
    assert name in found


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("megatron_config", {"hidden_size": 4}),  # has PEFT import the module that `megatron_core` names
        ("peft_type", ["x" * 10_000_000]),
        ("lora_alpha", {"a": list(range(1_000_000))}),
        ("alpha_pattern", {"(a+)+$": 1, "\x1b[2J" * 1000: -1}),
        ("init_lora_weights", "pissa" + "\u202e" * 100_000),
    ],
)
def test_hostile_settings_are_refused_in_a_short_line(adapted: Path, setting: str, value: Any) -> None:
    (adapted / "adapter_config.json").write_text(json.dumps({**ADAPTER, setting: value}))
    found = refused(f"{adapted.parent / 'base'}+{adapted}")
    assert setting in found
    assert len(found) < 1000
    assert found.isprintable()


@pytest.mark.parametrize(
    "name", ["\ud800", "a/\udfff.safetensors", "\x1b[2J", "x" * 300, "a\nb", "\u202egnp.safetensors"]
)
def test_a_shard_of_an_impossible_name_is_one_line(tmp_path: Path, write: Write, llama: Llama, name: str) -> None:
    path = write(tmp_path / "c", llama(), shards=2)
    index = path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["model.norm.weight"] = name
    index.write_text(json.dumps(content))
    found = refused(path)
    assert found.isprintable()
    assert len(found) < 1000
    assert str(path) in found


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_whose_lengths_claim_gigabytes_takes_none(tmp_path: Path, legacy: bool) -> None:
    (tmp_path / "config.json").write_text("{}")
    claims = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." if legacy else b"\x80\x02"
    # BINUNICODE of 4 GB, of which nothing follows.
    (tmp_path / "pytorch_model.bin").write_bytes(claims + b"\x80\x02X" + struct.pack("<I", 0xFFFFFFFF) + b"x.")
    assert "can't be loaded as weights only" in refused(tmp_path, allow_pickle=True)
