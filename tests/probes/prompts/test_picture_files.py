"""Pictures are seen as viewers show them, and what can't be shown is refused before a run."""

import numpy as np
import pytest
from PIL import Image

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


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "CMYK"])
def test_other_modes_become_rgb(mode):
    picture = Image.new(mode, (3, 2), 0)
    assert (pixels(picture) == np.asarray(picture.convert("RGB"))).all()


def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with pytest.raises(SurgeryError, match=r"x, line 1: can't open the image .*huge\.png \(more than 178 million pix"):
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
