"""Logs that unpack to gigabytes, and pictures that are larger than they look: one line, before memory runs out."""

import struct
import time
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image

from vlsurgery.probes.harnesses import import_log
from vlsurgery.probes.harnesses.pictures import data_uri
from vlsurgery.probes.prompts.picture_files import rgb
from vlsurgery.surgery.errors import SurgeryError


def test_a_log_that_unpacks_to_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "run.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        for part in range(8):
            archive.writestr(f"samples/{part}.json", bytes(1 << 26))
    began = time.monotonic()
    with pytest.raises(SurgeryError, match=r"bytes that unpack to 536870912"):
        import_log(tmp_path / "run.eval", "a", "harmful")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("text", ["[" * 100_000, '{"results": ' + "[" * 100_000, "9" * 5000, "\ud800", ""])
@pytest.mark.parametrize("name", ["run.json", "samples_a_2026.jsonl"])
def test_a_log_that_is_no_json_is_one_line(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(SurgeryError) as caught:
        import_log(tmp_path / name, "a", "harmful")
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 1000


def test_damaged_results_beside_samples_are_told(tmp_path: Path) -> None:
    sample = '{"doc_id": 0, "arguments": [["a", {}]], "resps": [["b"]]}'
    (tmp_path / "samples_a_2026.jsonl").write_text(sample)
    (tmp_path / "results_2026.json").write_text("[" * 100_000)
    with pytest.raises(SurgeryError, match=r"results_2026\.json: the results beside samples_a_2026\.jsonl"):
        import_log(tmp_path / "samples_a_2026.jsonl", "a", "harmful")


def test_a_picture_in_a_log_is_bounded_and_as_models_see_it(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    large = tmp_path / "large.png"
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size)
    large.write_bytes(start + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    with pytest.raises(SurgeryError, match="more than 64 million pixels"):
        data_uri(large)
    clear = tmp_path / "clear.png"
    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(clear)
    assert data_uri(clear) == data_uri(rgb(clear)) == data_uri(Image.new("RGB", (4, 4), "white"))
