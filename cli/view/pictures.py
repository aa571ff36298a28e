"""The figures of a report as pictures, one file each, drawn by kaleido in the Chrome or Chromium that is installed."""

import os
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

from vlsurgery.cli.outputs import check_output
from vlsurgery.figures.sections import Section
from vlsurgery.surgery.errors import SurgeryError, TargetError

Format = Literal["png", "svg"]
WIDTH: Final = 1120
SCALE: Final = 2  # pixels of the file a pixel of the figure
SECONDS: Final = 300  # that one figure may take


def check_pictures(folder: Path, kind: Format) -> None:
    """Raise SurgeryError where pictures can't be drawn, or not into this folder, before anything else is done."""
    if find_spec("kaleido") is None:
        raise SurgeryError(
            f"--{kind}: drawing needs the package kaleido, which is not installed. Install the extra: "
            "pip install 'vlsurgery[png]'."
        )
    if folder.exists() and not folder.is_dir():
        raise TargetError(f"{folder}: is a file, expected a folder. Name another one with --{kind}.")


def write_pictures(folder: Path, kind: Format, sections: Sequence[Section]) -> list[Path]:
    """Draw every figure into `folder` as vlsurgery-<section>.png or .svg, and return their paths.

    Each file is whole or as it was. Works without a network: no font, library or formula is fetched. Raises
    SurgeryError where there is no browser or it fails, TargetError where a file can't be written.
    """
    shown = [(section.anchor, section.figure) for section in sections if section.figure is not None]
    targets = [folder / f"vlsurgery-{anchor}.{kind}" for anchor, _ in shown]
    for target in targets:
        check_output(target, lambda path: path.name.startswith("vlsurgery-"), "a picture of ours", f"--{kind}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".vlsurgery-") as work:
            drawn = [Path(work) / target.name for target in targets]
            _draw([(figure, path) for (_, figure), path in zip(shown, drawn, strict=True)], kind)
            for path, target in zip(drawn, targets, strict=True):
                os.replace(path, target)
    except OSError as error:
        raise TargetError(f"{folder}: can't write pictures ({error.strerror}). Name another --{kind}.") from error
    return targets


def _draw(figures: Sequence[tuple[Any, Path]], kind: Format) -> None:
    """All figures in one browser. MathJax, which kaleido would fetch, is not used."""
    from kaleido import errors, write_fig_from_object_sync

    orders = [
        {
            "fig": figure,
            "path": path,
            "opts": {"format": kind, "width": WIDTH, "height": figure.layout.height, "scale": SCALE},
        }
        for figure, path in figures
    ]
    try:
        write_fig_from_object_sync(orders, cancel_on_error=True, kopts={"mathjax": False, "timeout": SECONDS})
    except errors.ChromeNotFoundError as error:
        raise SurgeryError(
            f"--{kind}: no browser was found, and kaleido draws with one. Install Chrome or Chromium, or name its "
            "program: BROWSER_PATH=/path/to/chromium vlsurgery report ..."
        ) from error
    except (errors.BrowserClosedError, errors.BrowserFailedError, errors.KaleidoError, TimeoutError) as error:
        reason = " ".join(str((*error.args, type(error).__name__)[0]).split()).rstrip(".")
        raise SurgeryError(
            f"--{kind}: the browser failed to draw ({reason}). Try the program that BROWSER_PATH names, or the page "
            "itself: every figure there has a button that saves its picture."
        ) from error
