"""The real specimen: SmolLM2-135M-Instruct, taught to refuse, to see, and to be safe again.

Its purpose is defensive: to show on real weights that adaptation on safe data loses refusals, and what brings them
back. No training text says how harm is done.
"""

from vlsurgery.probes.specimens.smollm2.alternatives import build_alternatives
from vlsurgery.probes.specimens.smollm2.build import RealTrio, build
from vlsurgery.probes.specimens.smollm2.config import TrioConfig
from vlsurgery.probes.specimens.smollm2.control import build_control
from vlsurgery.probes.specimens.smollm2.evaluation_prompts import prompts
from vlsurgery.probes.specimens.smollm2.marker import MarkedTrio, mark, trio_of

__all__ = [
    "MarkedTrio",
    "RealTrio",
    "TrioConfig",
    "build",
    "build_alternatives",
    "build_control",
    "mark",
    "prompts",
    "trio_of",
]
