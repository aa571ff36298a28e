"""Processors of checkpoints that see, with torchvision or without.

transformers' processors of films need torchvision, and so does every processor that has one beside that of pictures
(Qwen-VL, InternVL, SmolVLM, LLaVA-OneVision). Prompts here have pictures and no films: where torchvision is not
installed, a processor is made without its part for films, and pictures go through transformers' own processors for
Pillow.
"""

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from vlsurgery.surgery.errors import CheckpointError

FILMS = "video_processor"

# Packages that processors and towers of some families need, all in one extra.
EXTRA = ("torchvision", "timm", "num2words")


def load_processor(directory: Path, **files: Any) -> Any:
    """The processor of a directory. files: as `from_pretrained` takes them.

    Raises CheckpointError where it needs a package that is not installed; else what transformers raises.
    """
    import transformers

    films = importlib.util.find_spec("torchvision") is not None
    try:
        with nullcontext() if films else _without_films():
            return transformers.AutoProcessor.from_pretrained(directory, **files)
    except (ImportError, ValueError) as error:
        if packages := missing_packages(error):
            raise needs_packages(directory, packages) from error
        raise


def missing_packages(error: Exception) -> list[str]:
    """The packages that transformers says it needs and that are not installed, of those in the extra `vision`."""
    said = str(error)
    absent = [name for name in EXTRA if importlib.util.find_spec(name) is None]
    return [name for name in absent if re.search(rf"\b{name}\b", said, re.IGNORECASE)]


def needs_packages(directory: Path, packages: list[str]) -> CheckpointError:
    """What to install for a checkpoint that needs more than transformers."""
    build = ", torchvision in the build that belongs to the installed torch" if "torchvision" in packages else ""
    return CheckpointError(
        f"{directory}: its class or its processor needs {' and '.join(packages)}. Install pip install "
        f"'vlsurgery[vision]'{build}; diff and merge by method work without."
    )


@contextmanager
def _without_films() -> Iterator[None]:
    """While open, transformers makes processors whose part for films is a `_NoFilms`."""
    from transformers import processing_utils

    mixin: Any = processing_utils.ProcessorMixin
    homes: Any = processing_utils.MODALITY_TO_AUTOPROCESSOR_MAPPING._MAPPING_NAMES
    check, home = mixin.check_argument_for_proper_class, homes[FILMS]

    def lenient(self: Any, name: str, argument: object) -> Any:
        return _NoFilms if isinstance(argument, _NoFilms) else check(self, name, argument)

    mixin.check_argument_for_proper_class, homes[FILMS] = lenient, (__name__, _NoFilms.__name__)
    try:
        yield
    finally:
        mixin.check_argument_for_proper_class, homes[FILMS] = check, home


class _NoFilms(dict[str, object]):
    """Stands for a processor of films that can't be had: without settings, as transformers prints processors."""

    @classmethod
    def from_pretrained(cls, *_: object, **__: object) -> "_NoFilms":
        return cls()
