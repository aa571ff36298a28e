"""How a checkpoint is known as one of a real trio: a file at the trio's root names the checkpoints of each role."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vlsurgery.probes.specimens.smollm2.build import RealTrio
from vlsurgery.surgery.runtime.atomic_file import write_text

MARKER: Final = "trio.json"
SCHEMA: Final = "vlsurgery/real-trio/1"
ROLES: Final = ("base", "adapted", "mild", "safety", "dpo", "mixed")
DEPTH: Final = 2  # a checkpoint lies so deep in its trio at most


@dataclass(frozen=True)
class MarkedTrio:
    """A real trio, as a checkpoint of it tells. told: what it is, in a sentence that goes with all its results."""

    root: Path
    seed: int
    told: str


def mark(trio: RealTrio) -> MarkedTrio:
    """Write the marker of a trio that is whole."""
    roles = {role: str(getattr(trio, role).relative_to(trio.root)) for role in ROLES}
    content = {"schema": SCHEMA, "seed": trio.seed, "roles": roles, "story": trio.story}
    write_text(trio.root / MARKER, json.dumps(content, indent=1) + "\n")
    return MarkedTrio(trio.root, trio.seed, _told(trio.seed))


def trio_of(directory: Path) -> MarkedTrio | None:
    """The trio of a checkpoint directory, or None where no marker names it."""
    directory = directory.resolve()
    for root in directory.parents[:DEPTH]:
        marker = root / MARKER
        if marker.is_file():
            content = json.loads(marker.read_text())
            known = [root / place for place in content["roles"].values()]
            return MarkedTrio(root, content["seed"], _told(content["seed"])) if directory in known else None
    return None


def _told(seed: int) -> str:
    return (
        "These are real weights, of SmolLM2-135M-Instruct, which this package taught to refuse, then to see on safe "
        f"data alone, then to be safe again (seed {seed}). Steps were fixed beforehand: nothing was stopped or chosen "
        "by its refusals."
    )
