"""Ordinary pictures of the user's own: which one a request gets, and which folders are refused."""

from pathlib import Path

import pytest
from PIL import Image

from vlsurgery.probes.prompts import Prompt, album_of, english_prompts, load_prompts, with_ordinary_pictures
from vlsurgery.surgery.errors import SurgeryError


@pytest.fixture
def folder(tmp_path):
    """Five pictures of four kinds, a file that is none, and a folder that is not looked into."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for at, name in enumerate(("e.png", "a.JPG", "d.webp", "b.jpeg", "c.png", "more/f.png")):
        Image.new("RGB", (8, 8), (40 * at, 0, 0)).save(folder / name)
    (folder / "readme.txt").write_text("x")
    return folder


def test_the_pictures_of_a_folder_are_those_in_it_by_name(folder):
    assert [path.name for path in album_of(folder).pictures] == ["a.JPG", "b.jpeg", "c.png", "d.webp", "e.png"]


@pytest.mark.parametrize("suffix", ["gif", "bmp", "tif", "tiff", "GIF"])
def test_every_format_of_a_prompts_file_counts_in_a_folder_too(tmp_path, suffix):
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{suffix}")
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    assert [path.name for path in album_of(tmp_path).pictures] == [f"a.{suffix}", "b.png"]


def test_files_are_asked_with_the_users_pictures(write, folder):
    path = write("a.txt", "".join(f"question {number}\n" for number in range(60)))
    prompts = load_prompts(f"{path}:harmful", images=folder)
    benign = {p.request: p.image for p in prompts if p.modality == "benign"}
    assert set(benign.values()) == set(album_of(folder).pictures)
    assert benign == {
        p.request: p.image for p in load_prompts(f"{path}:harmful", 0, str(folder)) if p.image in benign.values()
    }
    assert all(not isinstance(p.image, Path) for p in prompts if p.modality in ("blank", "noise"))


def test_the_packages_own_get_them_too_and_twins_stay_alike(folder):
    own = english_prompts()
    found = with_ordinary_pictures(own, album_of(folder), 0)
    assert [(p.id, p.text, p.modality) for p in found] == [(p.id, p.text, p.modality) for p in own]
    pictures = {}
    for before, after in zip(own, found, strict=True):
        if after.modality == "benign":
            assert pictures.setdefault(after.request, after.image) == after.image
        else:
            assert after.image is before.image
    assert set(pictures.values()) == set(album_of(folder).pictures)


def test_a_request_has_the_same_picture_in_every_set_and_form(folder):
    album = album_of(folder)
    forms = [
        Prompt(f"{name}/1/benign", "the request", name, name, "fit", "benign", Image.new("RGB", (1, 1)))
        for name in ("harmful", "jailbroken", "harmless")
    ]
    assert len({prompt.image for prompt in with_ordinary_pictures(forms, album, 3)}) == 1


def test_a_folder_that_can_not_be_used_is_refused(folder, tmp_path):
    for path, message in (
        (folder / "more" / "none", "can't list its pictures"),
        (folder / "readme.txt", "can't list its pictures"),
    ):
        with pytest.raises(SurgeryError, match=message):
            album_of(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        SurgeryError,
        match=r"empty: holds no pictures \(\.png, \.jpg, \.jpeg, \.webp, \.gif, \.bmp, \.tif, \.tiff, \.avif\)",
    ):
        album_of(tmp_path / "empty")


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_a_broken_picture_is_named(folder, content):
    whole = (folder / "a.JPG").read_bytes()
    (folder / "z.jpg").write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(SurgeryError, match=r"photos: can't open the image .*z\.jpg"):
        album_of(folder)
