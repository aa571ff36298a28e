"""The versions of the programs that results depend on."""

from importlib.metadata import version
from typing import Final

PROGRAMS: Final = ("vlsurgery", "torch", "numpy")


def programs() -> str:
    """ "vlsurgery 0.1.0, torch 2.6.0, numpy 2.1.0", as they are installed here."""
    return ", ".join(f"{name} {version(name)}" for name in PROGRAMS)
