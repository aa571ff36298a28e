"""What comes by Xet is bounded as all else from a Hub: by the size that was named, by room, and by progress."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import file_download

from vlsurgery.surgery.checkpoint import hub_guard, hub_xet
from vlsurgery.surgery.checkpoint.hub_replies import ReplyError
from vlsurgery.surgery.checkpoint.shards import MAX_JSON_BYTES

Fetch = Callable[..., None]


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Downloads by Xet from a library that does what the test tells it to, under our bounds."""
    monkeypatch.setattr(hub_guard, "PROGRESS_SECONDS", 0.5)

    def run(fetch: Fetch, size: int | None = 8, name: str = "model.safetensors") -> Path:
        monkeypatch.setattr(file_download, "xet_get", fetch)
        file = tmp_path / "blob.incomplete"
        with hub_guard.guarded():
            file_download.xet_get(
                incomplete_path=file, xet_file_data=None, headers={}, expected_size=size, displayed_filename=name
            )
        assert file_download.xet_get is fetch
        return file

    return run


def endless(incomplete_path: Path, **_: Any) -> None:
    with incomplete_path.open("wb", buffering=0) as file:
        for _second in range(100):
            file.write(b"x" * 100)
            time.sleep(0.05)


def silent(**_: Any) -> None:
    time.sleep(20)


def test_a_whole_file_comes_through(download: Callable[..., Path]) -> None:
    assert download(lambda incomplete_path, **_: incomplete_path.write_bytes(b"12345678")).read_bytes() == b"12345678"


@pytest.mark.parametrize(
    ("fetch", "size", "name", "said"),
    [
        (endless, 8, "model.safetensors", "more than the 8 bytes"),
        (silent, 8, "model.safetensors", "too slow"),
        (lambda incomplete_path, **_: incomplete_path.write_bytes(b"1234"), 8, "model.safetensors", "came of the 8"),
        (silent, MAX_JSON_BYTES + 1, "tokenizer.json", "is the most"),
        (silent, None, "model.safetensors", "no size"),
    ],
)  # fmt: skip
def test_what_is_not_as_named_is_one_line(
    download: Callable[..., Path], fetch: Fetch, size: int | None, name: str, said: str
) -> None:
    began = time.monotonic()
    with pytest.raises(ReplyError, match=said):
        download(fetch, size, name)
    assert time.monotonic() - began < 5


def test_a_file_beyond_the_room_is_not_begun(download: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_xet.shutil, "disk_usage", lambda _: SimpleNamespace(free=4))
    with pytest.raises(ReplyError, match="a file of 8 bytes, and room for 4"):
        download(silent)
