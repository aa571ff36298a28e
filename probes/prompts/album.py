"""Ordinary pictures that have nothing to do with a request: drawn scenes, or those of the user's folder."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from vlsurgery.probes.prompts.picture_files import check_picture
from vlsurgery.probes.prompts.pictures import blank, scene
from vlsurgery.probes.prompts.prompt import Picture, Prompt
from vlsurgery.probes.prompts.splits import seeded_unit
from vlsurgery.surgery.errors import SurgeryError

SCENES = 24  # different drawn pictures
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


@dataclass(frozen=True)
class Album:
    """Pictures to choose from, in a fixed order; at least one."""

    pictures: tuple[Picture, ...]

    def draw(self, request: str, seed: int) -> Picture:
        """The picture of a request: the same for its twin and its jailbroken forms, whatever else is asked."""
        # The prefix keeps the picture independent of the split, which is made from the same request and seed.
        return self.pictures[int(seeded_unit(f"picture/{request}", seed) * len(self.pictures))]


@cache
def scenes() -> Album:
    """The package's own drawn scenes. Prompts share them, to save memory; a prompt's picture is never changed."""
    return Album(tuple(scene(number) for number in range(SCENES)))


# Prompts share the blank picture too.
blank_picture = cache(blank)


def album_of(folder: Path) -> Album:
    """The pictures of a folder (not of folders in it), sorted by name.

    Raises SurgeryError where it is no folder, holds no picture, or holds one that can't be opened.
    """
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except OSError as error:
        raise SurgeryError(
            f"{folder}: can't list its pictures ({error.strerror}). Give a folder of pictures."
        ) from error
    if not found:
        raise SurgeryError(f"{folder}: holds no pictures ({', '.join(SUFFIXES)}). Put at least one into it.")
    for path in found:
        check_picture(path, str(folder))
    return Album(tuple(found))


def with_ordinary_pictures(prompts: Iterable[Prompt], album: Album, seed: int) -> list[Prompt]:
    """The prompts, each `benign` picture replaced by the album's for the same request."""
    return [
        replace(prompt, image=album.draw(prompt.request, seed)) if prompt.modality == "benign" else prompt
        for prompt in prompts
    ]
