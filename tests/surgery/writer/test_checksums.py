"""SHA256SUMS is what sha256sum reads, and every file that is not as it was written is named."""

import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from vlsurgery.surgery.checkpoint.digests import file_digest
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.writer.checksums import SUMS, sums_text, verify

NAMES = ("config.json", "inside/table.txt", "odd\\name\n.txt", "model.safetensors")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes([number]) * 1000)
    (tmp_path / SUMS).write_text(sums_text({name: file_digest(tmp_path / name) for name in NAMES}))
    return tmp_path


def test_what_was_written_agrees(folder: Path) -> None:
    found = verify(folder)
    assert (found.agree, found.differ, found.missing, found.unlisted) == (tuple(sorted(NAMES)), (), (), ())
    assert found.fault is None


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
def test_sha256sum_agrees(folder: Path) -> None:
    assert subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, check=True, capture_output=True)


def test_every_file_that_is_not_as_written_is_named(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(999)
        file.write(b"\xff")
    (folder / "inside/table.txt").unlink()
    (folder / "new").touch()
    (folder / ".cache").mkdir()
    (folder / ".cache" / "state").touch()
    found = verify(folder)
    assert (found.differ, found.missing, found.unlisted) == (("model.safetensors",), ("inside/table.txt",), ("new",))
    assert found.fault is not None
    for name in ("model.safetensors", "inside/table.txt", "new"):
        assert name in found.fault


def test_a_pipe_and_a_dead_link_are_not_as_written_and_are_not_waited_for(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")
    (folder / "inside/table.txt").unlink()
    (folder / "inside/table.txt").symlink_to("nowhere")
    assert verify(folder).differ == ("inside/table.txt", "model.safetensors")


def test_a_list_that_was_tampered_with(folder: Path) -> None:
    text = (folder / SUMS).read_text()
    digest = sha256(bytes([3]) * 1000).hexdigest()
    (folder / SUMS).write_text(text.replace(digest, digest[::-1]))
    assert verify(folder).differ == ("model.safetensors",)
    (folder / SUMS).write_text(text + "what is this\n")
    with pytest.raises(CheckpointError, match=f"{SUMS}: line 5 is not"):
        verify(folder)
    (folder / SUMS).write_text(f"{digest}  ../elsewhere\n")
    with pytest.raises(CheckpointError, match="outside"):
        verify(folder)
    (folder / SUMS).unlink()
    with pytest.raises(CheckpointError, match=f"no {SUMS} in it"):
        verify(folder)


@settings(max_examples=40, deadline=None)
@given(name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_any_name_comes_back(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = tmp_path_factory.mktemp("names")
    if name in (".", ".."):
        return
    (folder / SUMS).write_text(sums_text({name: "0" * 64}), newline="")
    assert verify(folder).missing == (name,)
