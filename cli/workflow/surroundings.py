"""What a step was run by: versions, machine, threads."""

import os
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version as installed
from typing import Final

from vlsurgery.cli.version import commit, version
from vlsurgery.surgery.results import Frozen

# Packages that numbers or bytes depend on.
PACKAGES: Final = (
    *("torch", "transformers", "tokenizers", "safetensors", "numpy", "scipy", "numba"),
    *("scikit-learn", "pillow"),
)
CPU_FILE: Final = "/proc/cpuinfo"


class Surroundings(Frozen):
    """vlsurgery: its version; commit: None where it is not known. packages: name -> version of those installed that
    numbers depend on. processor: its name. cores: that the process may use. threads: of torch; None where the step ran
    without it. accelerators: names of the GPUs that torch found."""

    vlsurgery: str
    commit: str | None
    python: str
    packages: dict[str, str]
    system: str
    processor: str
    cores: int
    threads: int | None
    accelerators: list[str]


def surroundings() -> Surroundings:
    """Those of this process, now. Imports no torch: where it was not imported, nothing ran on it."""
    torch = sys.modules.get("torch")
    gpus = range(torch.cuda.device_count()) if torch is not None and torch.cuda.is_available() else ()
    return Surroundings(
        vlsurgery=version(),
        commit=_commit(),
        python=platform.python_version(),
        packages=_packages(),
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=None if torch is None else torch.get_num_threads(),
        accelerators=[] if torch is None else [torch.cuda.get_device_name(at) for at in gpus],
    )


@cache
def _commit() -> str | None:
    return commit()


@cache
def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = installed(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def _processor() -> str:
    """The processor's name as the system gives it."""
    if os.path.isfile(CPU_FILE):
        with open(CPU_FILE, encoding="utf-8", errors="replace") as file:
            named = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), "")
        if named:
            return named
    return platform.processor() or platform.machine()
