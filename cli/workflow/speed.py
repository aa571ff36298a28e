"""How fast this machine is, and what a diff takes on it."""

import time
from collections.abc import Mapping

from vlsurgery.surgery.alignment import Alignment, align
from vlsurgery.surgery.alignment.roles import safety_role
from vlsurgery.surgery.checkpoint import Checkpoint

COMPARED_PER_SECOND = 2e9  # bytes that a diff reads and sums up


def operations_per_second() -> float:
    """How fast this machine multiplies matrices of float32."""
    import torch

    matrix = torch.ones(768, 768)
    began = time.perf_counter()
    for _ in range(4):
        matrix @ matrix
    return 4 * 2 * 768**3 / (time.perf_counter() - began)


def seconds_of_diff(alignment: Alignment, level: str, speed: float) -> float:
    """About how long a diff takes where so many operations are done in a second."""
    from vlsurgery.surgery.diff.cost import effort

    work = effort(alignment, safety_role(alignment.checkpoints))
    spectra = work.operations / speed if level == "full" else 0.0
    return 1 + work.bytes / COMPARED_PER_SECOND + spectra


def times_of_levels(checkpoints: Mapping[str, Checkpoint]) -> tuple[str, str]:
    """About how long a full diff and one of norms take on this machine, in words."""
    alignment, speed = align(checkpoints), operations_per_second()
    return duration(seconds_of_diff(alignment, "full", speed)), duration(seconds_of_diff(alignment, "norms", speed))


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
