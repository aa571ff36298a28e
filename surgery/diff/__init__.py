"""How far weights moved, and how two deltas relate, each with its null."""

from typing import Literal

# How much is measured: `norms` leaves out what needs the singular values of every matrix.
Level = Literal["norms", "full"]
