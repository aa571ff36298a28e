"""Packages that only a harness needs, imported when one is used."""

from importlib import import_module
from typing import Any

from vlsurgery.surgery.errors import SurgeryError


def extra(module: str, name: str) -> Any:
    """A module of an optional package. `name`: of the extra that installs it. Raises SurgeryError where it is not."""
    try:
        return import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise SurgeryError(f"{package} can't be imported ({error}). Run: pip install 'vlsurgery[{name}]'.") from error
