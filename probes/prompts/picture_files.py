"""Pictures as pixels, the way that viewers and image processors show them; broken files are found before a run."""

from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from vlsurgery.probes.prompts.prompt import Picture
from vlsurgery.surgery.errors import SurgeryError

# What Pillow raises for files that are no picture, cut off, broken or of too many pixels.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError)


def rgb(picture: Picture) -> Image.Image:
    """The pixels of a picture in RGB: turned as its EXIF data says, what is transparent on white.

    Raises SurgeryError where a file can't be opened.
    """
    if isinstance(picture, Image.Image):
        return _flat(picture)
    try:
        with Image.open(picture) as opened:
            return _flat(opened)
    except _BROKEN as error:
        raise SurgeryError(f"{picture}: {_fault(error)}. Mend, replace or remove the picture.") from error


def check_picture(path: Path, where: str) -> None:
    """Raise SurgeryError unless a file is a whole picture. where: the place that names it, for the message."""
    try:
        stat = path.stat()
        _decode(path, stat.st_mtime_ns, stat.st_size)
    except _BROKEN as error:
        raise SurgeryError(f"{where}: can't open the image {path} ({_fault(error)}). Mend or remove it.") from error


@lru_cache(maxsize=65536)
def _decode(path: Path, modified: int, size: int) -> None:  # noqa: ARG001
    """Decode a picture, once for each state of its file."""
    with Image.open(path) as picture:
        picture.draft("RGB", (64, 64))  # a JPEG is then read at an eighth of its size, yet to its end
        _flat(picture)


def _flat(picture: Image.Image) -> Image.Image:
    turned = ImageOps.exif_transpose(picture)
    if not turned.has_transparency_data:
        return turned.convert("RGB")
    layer = turned.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _fault(error: Exception) -> str:
    match error:
        case UnidentifiedImageError():
            return "not a picture"
        case Image.DecompressionBombError():
            return f"more than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} million pixels"
        case OSError() if error.strerror:
            return error.strerror
        case _:
            return f"cut off or broken: {' '.join(str(error).split())}"
