"""torchvision beside a torch that it was not built for: its picture transforms, which is all that processors use.

Builds of torch and torchvision must be a pair, or torchvision's compiled operators (for detection: non-maximum
suppression and the like) don't load and its import ends in "operator torchvision::nms does not exist". Its transforms
are plain torch and need none of them.
"""

import importlib
import importlib.util
import re
import sys
from functools import cache
from typing import Any

import torch

NO_OPERATOR = re.compile(r"operator (torchvision::(\w+)) does not exist")


@cache
def import_torchvision() -> bool:
    """Import torchvision where it is installed, and tell whether it is.

    Operators that its compiled library should bring and does not are declared without a body: to call one raises
    NotImplementedError.
    """
    if importlib.util.find_spec("torchvision") is None:
        return False
    declared: set[str] = set()
    while (missing := _missing_operator()) is not None:
        if missing in declared:
            raise ImportError(f"torchvision can't be imported: its operator {missing} is declared and not found")
        declared.add(missing)
        _declarations().define(f"{missing}(Tensor any) -> Tensor")
    return True


def _missing_operator() -> str | None:
    """Import torchvision, and name the operator that it did not find; None where it is imported."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        found = NO_OPERATOR.search(str(error))
        if found is None:
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        return found[2]
    return None


@cache
def _declarations() -> Any:
    return torch.library.Library("torchvision", "FRAGMENT")
