"""What spectra tell of one pair, for whoever asks for none of them as well."""

from dataclasses import dataclass, field
from typing import Any, Final

# The role that a delta ends in -> the one that it starts from.
DELTAS: Final = {"adapted": "base", "safety": "adapted"}


@dataclass
class PairSpectra:
    """What spectra tell of one pair, by metric. deltas: role that a delta ends in -> its metrics."""

    deltas: dict[str, dict[str, Any]] = field(default_factory=dict)
    between: dict[str, Any] = field(default_factory=dict)
