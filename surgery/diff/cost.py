"""What a diff takes, by the headers alone: bytes to read and operations to do."""

import math
from typing import Final, NamedTuple

from vlsurgery.surgery.alignment import Alignment
from vlsurgery.surgery.diff.norm_bounds import PROBES
from vlsurgery.surgery.diff.spectra import without_spectrum
from vlsurgery.surgery.diff.spectrum import KEPT, POWERS, SPARE, STEPS, is_small

# Columns that a matrix is multiplied by: for the spectrum of a delta and what it is compared with, and for the
# leading directions of the base.
OF_DELTA: Final = (2 * STEPS + 2) * (KEPT + SPARE) + 2 * POWERS * PROBES + KEPT
OF_BASE: Final = (2 * STEPS + 1) * (KEPT + SPARE)


class Effort(NamedTuple):
    """bytes: of all tensors that are compared, once. operations: of the products of matrices that spectra take."""

    bytes: int
    operations: float


def effort(alignment: Alignment, safety: str | None) -> Effort:
    """What a diff of full level takes, `safety` being the role of the safety-tuned checkpoint where there is one."""
    nbytes, operations = 0, 0.0
    for pair in alignment.pairs:
        held = [role for role in ("base", "adapted", safety) if role in pair.parts]
        nbytes += sum(pair.numel * alignment.tensor(pair, role).dtype.itemsize for role in held if role)
        if without_spectrum(pair.shape) is None:
            # Products in float64 take twice as long.
            exact = 2 * min(pair.shape) * len(held)
            columns = exact if is_small(pair.shape) else OF_DELTA * (len(held) - 1) + OF_BASE
            operations += 2.0 * math.prod(pair.shape) * columns
    return Effort(nbytes, operations)
