"""Prompts as plain data, and the digest of a list."""

import io
import random
from dataclasses import replace

import pytest
from PIL import Image

from vlsurgery.probes.prompts import Prompt, english_prompts, load_prompts, prompts_as_records, prompts_digest
from vlsurgery.surgery.errors import SurgeryError

PROMPTS = english_prompts()[:40]


def test_a_record_holds_all_of_a_prompt():
    for prompt, record in zip(PROMPTS, prompts_as_records(PROMPTS), strict=True):
        picture = record.pop("picture")
        assert record == {name: getattr(prompt, name) for name in record}
        assert len(record) == 7
        if prompt.image is None:
            assert picture is None
        else:
            with Image.open(io.BytesIO(picture)) as read:
                assert read.format == "PNG"
                assert read.tobytes() == prompt.image.tobytes()


def test_a_picture_file_becomes_png(tmp_path):
    Image.new("L", (3, 2), 7).save(tmp_path / "a.webp")
    prompt = Prompt("x", "x", "harmless", "x", "fit", "own", tmp_path / "a.webp")
    with Image.open(io.BytesIO(prompts_as_records([prompt])[0]["picture"])) as read:
        assert (read.format, read.mode, read.size) == ("PNG", "RGB", (3, 2))
    for broken in (b"no picture", None):
        (tmp_path / "a.webp").unlink() if broken is None else (tmp_path / "a.webp").write_bytes(broken)
        with pytest.raises(SurgeryError, match=r"a\.webp"):
            prompts_as_records([prompt])


def test_the_digest_does_not_know_the_order():
    assert prompts_digest(random.Random(0).sample(PROMPTS, len(PROMPTS))) == prompts_digest(PROMPTS)
    assert prompts_digest(english_prompts()[:40]) == prompts_digest(PROMPTS)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "other"},
        {"request": "other"},
        {"set": "borderline"},
        {"split": "select"},
        {"modality": "own"},
        {"text": "other"},
        {"answer": "other"},
        {"image": Image.new("RGB", (224, 224), "red")},
        {"image": Image.new("RGB", (112, 448), "white")},
    ],
)
def test_the_digest_changes_with_every_part(change):
    one = Prompt("id", "request", "harmful", "text", "fit", "benign", Image.new("RGB", (224, 224), "white"), "answer")
    assert prompts_digest([replace(one, **change)]) != prompts_digest([one])
    assert prompts_digest([one, one]) != prompts_digest([one])


def test_a_changed_picture_file_changes_digest_and_id_and_a_moved_one_does_not(write, tmp_path):
    def load(folder):
        path = write(f"{folder}/a.jsonl", [{"prompt": "What is it?", "image": "a.png"}])
        return load_prompts(f"{path}:harmful")

    (tmp_path / "one").mkdir()
    Image.new("RGB", (4, 4), "red").save(tmp_path / "one/a.png")
    (tmp_path / "two").mkdir()
    (tmp_path / "two/a.png").write_bytes((tmp_path / "one/a.png").read_bytes())
    first, second = load("one"), load("two")
    assert prompts_digest(first) == prompts_digest(second)
    Image.new("RGB", (4, 4), "blue").save(tmp_path / "two/a.png")
    assert prompts_digest(second) != prompts_digest(first)
    assert load("two")[0].id != first[0].id
