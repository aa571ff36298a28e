"""torchvision beside a torch that it was not built for: its picture transforms, which is all that processors use.

Builds of torch and torchvision must be a pair, or torchvision's compiled operators (for detection: non-maximum
suppression and the like) don't load, and every import of it or of transformers ends in "operator torchvision::nms does
not exist". Its transforms are plain torch and need none of them.
"""

import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, Final

NAME: Final = "torchvision"
NO_OPERATOR: Final = re.compile(r"operator torchvision::(\w+) does not exist")


def mend_torchvision() -> None:
    """From now on, `import torchvision` declares the operators that its compiled library should bring and does not;
    to call one raises. Where that library loads, nothing changes."""
    if NAME not in sys.modules and not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds torchvision where Python does, and has it loaded by `_Loader`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = PathFinder.find_spec(fullname, path, target) if fullname == NAME else None
        if found is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _Loader(found.loader.name, found.loader.path)
        return found


class _Loader(SourceFileLoader):
    """Loads torchvision, again after each operator that it did not find and that is declared then."""

    def exec_module(self, module: ModuleType) -> None:
        declarations: list[Any] = []
        declared: set[str] = set()
        while True:
            try:
                super().exec_module(module)
            except RuntimeError as error:
                missing = NO_OPERATOR.search(str(error))
                if missing is None or missing[1] in declared:
                    raise
                declared.add(missing[1])
                declarations.append(_declared(missing[1]))
                for name in [name for name in sys.modules if name.startswith(f"{NAME}.")]:
                    del sys.modules[name]
            else:
                module.__dict__["_declared_operators"] = declarations  # they last as long as these objects do
                return


def _declared(operator: str) -> Any:
    import torch

    library = torch.library.Library(NAME, "FRAGMENT")
    library.define(f"{operator}(Tensor any) -> Tensor")
    return library
