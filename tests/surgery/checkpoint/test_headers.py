"""A header is believed only when every number in it agrees with the file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from vlsurgery.surgery.checkpoint.headers import header_bytes, read_header
from vlsurgery.surgery.errors import CheckpointError, SurgeryError

ANY_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def write(path: Path, members: Any, data: bytes = b"", length: int | None = None) -> Path:
    text = members if isinstance(members, bytes) else json.dumps(members).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def tensor(start: int, stop: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(stop - start) // 4] if shape is None else shape, "data_offsets": [start, stop]}


def test_reads_what_the_library_writes(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(3, 2, dtype=torch.bfloat16), "b": torch.tensor(1.0), "c": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    header = read_header(tmp_path / "x.safetensors")
    assert {entry.name: entry.shape for entry in header.entries} == {"a": (3, 2), "b": (), "c": (0, 4)}
    assert {entry.name: entry.safetensors_dtype for entry in header.entries} == {"a": "BF16", "b": "F32", "c": "F32"}
    assert header.metadata == {"format": "pt"}


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    text = header_bytes([("ä.weight", "F32", (2, 2), 16), ("n", "I64", (), 8)], {"format": "pt"})
    assert len(text) % 8 == 0
    (tmp_path / "x.safetensors").write_bytes(text + bytes(24))
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.get_tensor("ä.weight").shape == (2, 2)
        assert file.get_tensor("n").item() == 0
        assert file.metadata() == {"format": "pt"}


DAMAGES = {
    "overlap": ({"a": tensor(0, 8), "b": tensor(4, 12)}, 12, "overlaps 'a'"),
    "gap": ({"a": tensor(0, 4), "b": tensor(8, 12)}, 12, "gap behind 'a'"),
    "gap at the start": ({"a": tensor(4, 8)}, 8, "gap behind the header"),
    "bytes at the end": ({"a": tensor(0, 4)}, 8, "4 bytes at its end"),
    "beyond the file": ({"a": tensor(0, 16)}, 8, "truncated"),
    "shape lies": ({"a": tensor(0, 8, [3])}, 8, "do not need the 8 bytes"),
    "endless shape": ({"a": tensor(0, 8, [2**62] * 50)}, 8, "do not need"),
    "negative shape": ({"a": tensor(0, 8, [-2])}, 8, "not a list of counts"),
    "true is not 1": ({"a": tensor(0, 4, [True])}, 4, "not a list of counts"),
    "backwards": ({"a": {"dtype": "F32", "shape": [], "data_offsets": [4, 0]}}, 4, "bytes 4 to 0"),
    "unknown dtype": ({"a": tensor(0, 4, [1], "F33")}, 4, "unknown dtype 'F33'"),
    "unhashable dtype": ({"a": {"dtype": [], "shape": [], "data_offsets": [0, 4]}}, 4, "unknown dtype"),
    "a key too many": ({"a": {**tensor(0, 4), "more": 1}}, 4, "nothing else"),
    "not an object": ([1], 0, "a JSON object"),
    "metadata": ({"__metadata__": {"a": 1}}, 0, "__metadata__"),
    "twice": (b'{"a":1,"a":2}', 0, "'a' occurs twice"),
    "not JSON": (b"{", 0, "not JSON"),
    "not UTF-8": (b'{"\xff":1}', 0, "not JSON"),
    "half a letter": (b'{"\\ud800":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', 4, "not a name"),
    "nested without end": (b"[" * 100_000, 0, "not JSON"),
    "endless number": (b'{"a":' + b"1" * 10_000 + b"}", 0, "not JSON"),
}


@pytest.mark.parametrize("damage", DAMAGES, ids=str)
def test_a_lying_header_is_refused_and_the_fault_is_named(tmp_path: Path, damage: str) -> None:
    members, size, words = DAMAGES[damage]
    path = write(tmp_path / "x.safetensors", members, bytes(size))
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(("content", "words"), [(b"", "0 bytes"), (b"abc", "3 bytes"), (b"\xff" * 8, "header claims")])
def test_a_file_too_short_for_its_header(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        read_header(path)


@ANY_FOLDER
@given(st.data())
def test_damage_anywhere_is_an_error_or_harmless_never_a_crash(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.zeros(4), "b.c": torch.ones(2, 3)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "number"])):
            case "flip":
                content[place] = data.draw(st.integers(0, 255))
            case "cut":
                del content[place : place + data.draw(st.integers(1, 20))]
            case "insert":
                content[place:place] = data.draw(st.binary(max_size=20))
            case "number":
                content[place : place + 1] = data.draw(st.sampled_from([b"9", b"-1", b"1e9", b"null", b"{}", b"[[["]))
        content = content or bytearray(b"x")
    path.write_bytes(content)
    try:
        header = read_header(path)
    except SurgeryError:
        return
    assert sum(entry.nbytes for entry in header.entries) <= len(content)


@ANY_FOLDER
@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_json_is_an_error_or_a_header(tmp_path: Path, members: Any) -> None:
    path = write(tmp_path / "x.safetensors", members)
    try:
        assert read_header(path).entries == ()
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017
