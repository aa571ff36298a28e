"""Pictures as pixels, the way that transformers hands them to processors; broken files are found before a run."""

import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from PIL import Image, ImageOps, UnidentifiedImageError

from vlsurgery.probes.prompts.prompt import Picture
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.visible import visible

MAX_PIXELS: Final = 64_000_000  # of a picture: 200 MB in RGB, and several times that in a processor
MAX_RATIO: Final = 200  # of the longer side to the shorter: processors scale the shorter one up
MAX_SHOWN: Final = 400  # letters of a path in a message
# Formats that are read by Pillow itself. Others start programs (EPS runs Ghostscript), or are no pictures.
FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO")

# What Pillow raises for files that are no picture, cut off, broken or of too many pixels.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    ArithmeticError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


class Unfit(ValueError):
    """What a picture is that is whole and yet can't be used."""


def rgb(picture: Picture) -> Image.Image:
    """The pixels of a picture in RGB, as `transformers.image_utils.load_image` gives them: turned as its EXIF says.

    What is transparent is on white, as transformers' image processors show it; `load_image` would show the colours
    that nobody sees, which most programs leave black.

    Raises SurgeryError where a file can't be opened, or the picture is too large.
    """
    place = "a picture" if isinstance(picture, Image.Image) else _shown(picture)
    try:
        if isinstance(picture, Image.Image):
            _check_size(picture)
            return _flat(picture)
        with _opened(picture) as opened:
            return _flat(opened)
    except _BROKEN as error:
        raise SurgeryError(f"{place}: {_fault(error)}. Mend, replace or remove the picture.") from error


def check_picture(path: Path, where: str) -> None:
    """Raise SurgeryError unless a file is a whole picture. where: the place that names it, for the message."""
    try:
        found = path.stat()
        _decode(path, found.st_mtime_ns, found.st_size)
    except _BROKEN as error:
        place = _shown(path)
        raise SurgeryError(f"{where}: can't open the image {place} ({_fault(error)}). Mend or remove it.") from error


@lru_cache(maxsize=65536)
def _decode(path: Path, modified: int, size: int) -> None:  # noqa: ARG001
    """Decode a picture, once for each state of its file."""
    with _opened(path) as picture:
        picture.draft("RGB", (64, 64))  # a JPEG is then read at an eighth of its size, yet to its end
        _flat(picture)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture of a regular file, its size checked before a pixel is read."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
        raise Unfit("not a regular file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=_formats()) as picture:
            _check_size(picture)
            yield picture


@cache
def _formats() -> list[str]:
    """Those of FORMATS that this build of Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_size(picture: Image.Image) -> None:
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise Image.DecompressionBombError
    if max(width, height) > MAX_RATIO * min(width, height):
        raise Unfit(f"{width} x {height} pixels, expected sides of a ratio of at most {MAX_RATIO} to 1")


def _flat(picture: Image.Image) -> Image.Image:
    turned = ImageOps.exif_transpose(picture)
    if not turned.has_transparency_data:
        return turned.convert("RGB")
    layer = turned.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _shown(path: Path) -> str:
    """A path for a message: without control characters, and the end alone of one that is longer than any file's."""
    found = visible(str(path))
    return found if len(found) <= MAX_SHOWN else f"...{found[-MAX_SHOWN:]}"


def _fault(error: Exception) -> str:
    match error:
        case UnidentifiedImageError():
            return "not a picture in a format that is read: PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF"
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"more than {MAX_PIXELS // 10**6} million pixels"
        case OSError() if error.strerror:
            return error.strerror
        case Unfit():
            return str(error)
        case _:
            return f"cut off or broken: {' '.join(visible(str(error)[:300]).split())}"
