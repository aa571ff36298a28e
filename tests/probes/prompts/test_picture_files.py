"""Pictures are seen as viewers show them, and what can't be shown is refused before a run."""

import contextlib
import os

import numpy as np
import PIL
import pytest
import transformers
from packaging.version import Version
from PIL import Image
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import load_image

from vlsurgery.probes.prompts import rgb
from vlsurgery.probes.prompts.picture_files import check_picture
from vlsurgery.surgery.errors import SurgeryError


def pixels(picture):
    found = rgb(picture)
    assert found.mode == "RGB"
    return np.asarray(found).astype(int)


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photo_is_turned_as_its_exif_data_says(tmp_path, turn):
    """The oracle turns by hand what the eight values of the EXIF standard mean."""
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :8] = (220, 20, 20)
    undo = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a.transpose(1, 0, 2), 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.ascontiguousarray(undo[turn](upright))).save(tmp_path / "a.png", exif=exif)
    assert (pixels(tmp_path / "a.png") == upright).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_seen_on_white(tmp_path, mode):
    layer = np.zeros((4, 4, 4), np.uint8)
    layer[1] = (0, 0, 0, 255)
    Image.fromarray(layer).convert(mode).save(tmp_path / "a.png")
    seen = pixels(tmp_path / "a.png")
    assert (seen[1] == 0).all()
    assert (seen[[0, 2, 3]] == 255).all()


def test_half_transparent_is_half_white():
    layer = Image.new("RGBA", (1, 1), (100, 0, 200, 128))
    expected = [round(255 + (color - 255) * 128 / 255) for color in (100, 0, 200)]
    assert pixels(layer)[0, 0] == pytest.approx(expected, abs=1)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.png", "1"),
        ("a.png", "P"),
        ("a.png", "I;16"),
        ("a.gif", "P"),
        ("a.jpg", "CMYK"),
        ("a.jpg", "L"),
        ("a.tif", "I;16"),
        ("a.tif", "F"),
        ("a.tif", "I"),
        ("a.tif", "LAB"),
        pytest.param(
            "a.tif",
            "YCbCr",
            marks=pytest.mark.skipif(
                Version(PIL.__version__) < Version("13"), reason="Pillow before 13 reads no plain TIFF in YCbCr"
            ),
        ),
        ("a.webp", "RGB"),
    ],
)
def test_pictures_are_those_that_transformers_loads(tmp_path, name, mode):
    deep = np.random.default_rng(0).integers(0, 2**16, (20, 30), dtype=np.uint16)
    bright = Image.fromarray(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    made = {"I;16": deep, "F": deep.astype(np.float32) / 7, "I": deep.astype(np.int32) * 3}
    picture = Image.fromarray(made[mode]) if mode in made else bright.convert(mode)
    exif = Image.Exif()
    if name != "a.gif":
        exif[0x0112] = 6
    picture.save(tmp_path / name, **({} if name == "a.gif" else {"exif": exif}))
    assert (pixels(tmp_path / name) == np.asarray(load_image(str(tmp_path / name)))).all()


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.21"), reason="transformers before 5.21 drops alpha, over any colour"
)
@pytest.mark.parametrize("kind", ["rgba", "grey", "palette", "one colour", "half"])
def test_what_is_transparent_is_as_the_image_processor_shows_it(tmp_path, kind):
    layer = np.random.default_rng(0).integers(0, 256, (20, 30, 4), dtype=np.uint8)
    layer[..., 3] = layer[..., 3] if kind == "half" else layer[..., 3] // 128 * 255
    picture = Image.fromarray(layer)
    picture = {"grey": lambda: picture.convert("LA"), "palette": lambda: picture.convert("P")}.get(
        kind, lambda: picture
    )()
    if kind == "one colour":
        picture = picture.convert("RGB")
        picture.save(tmp_path / "a.png", transparency=picture.getpixel((0, 0)))
    else:
        picture.save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as opened:
        expected = convert_to_rgb(opened, return_numpy=True)
    assert (pixels(tmp_path / "a.png") == expected).all()


def test_no_program_is_started_and_no_pipe_is_waited_for(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.eps")
    with pytest.raises(SurgeryError, match=r"a\.eps: not a picture in a format that is read"):
        rgb(tmp_path / "a.eps")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(SurgeryError, match=r"pipe\.png .*not a regular file"):
        check_picture(tmp_path / "pipe.png", "here")


@pytest.mark.parametrize("size", [(12_000, 12_000), (8_001, 8_000), (1, 201)])
def test_pictures_are_bounded_in_pixels_and_shape(tmp_path, size):
    picture = Image.new("1", size)
    picture.save(tmp_path / "a.png")
    for attempt in (lambda: rgb(tmp_path / "a.png"), lambda: rgb(picture)):
        with pytest.raises(SurgeryError, match=r"more than 64 million pixels|1 x 201 pixels"):
            attempt()


def test_damaged_pictures_never_end_in_a_traceback(tmp_path):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    for suffix in ("png", "jpg", "webp", "gif", "tif", "bmp"):
        picture.save(tmp_path / f"whole.{suffix}")
        whole = np.frombuffer((tmp_path / f"whole.{suffix}").read_bytes(), np.uint8)
        for at in range(60):
            broken = whole.copy()
            broken[rng.integers(0, min(len(whole), 300), 6)] = rng.integers(0, 256, 6)
            path = tmp_path / f"{at}.{suffix}"
            path.write_bytes(broken.tobytes()[: rng.integers(20, len(whole))] if at % 2 else broken.tobytes())
            with contextlib.suppress(SurgeryError):
                rgb(path)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK"])
def test_other_modes_become_rgb(mode):
    picture = Image.new(mode, (3, 2), 0)
    assert (pixels(picture) == np.asarray(picture.convert("RGB"))).all()


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with pytest.raises(SurgeryError, match=r"x, line 1: can't open the image .*huge\.png \(more than 64 million pix"):
        check_picture(tmp_path / "huge.png", "x, line 1")


@pytest.mark.parametrize(
    ("content", "fault"),
    [(b"", "not a picture"), (b"GIF89a", "cut off or broken|not a picture"), (None, "No such file")],
)
def test_a_broken_file_is_named(tmp_path, content, fault):
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SurgeryError, match=rf"a\.png: .*({fault})"):
        rgb(path)
    with pytest.raises(SurgeryError, match=rf"here: .*a\.png \(.*({fault})"):
        check_picture(path, "here")


def test_a_mended_file_is_looked_at_again(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    check_picture(path, "here")
    path.write_bytes(path.read_bytes()[:30])
    with pytest.raises(SurgeryError, match=r"not a picture|cut off"):
        check_picture(path, "here")
