"""Which parents of a merge are models on the Hub, by the places that its recipe names."""

import os
import re
from dataclasses import dataclass
from typing import Final

from vlsurgery.surgery.results import CheckpointRef

# A model in the Hub's cache, and a Hub id with its commit.
_CACHED: Final = re.compile(r"models--(?P<name>[\w.-]+)/snapshots/(?P<commit>[0-9a-f]{40})$")
_NAMED: Final = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})$")


@dataclass(frozen=True)
class HubParent:
    """A model on the Hub at one commit. name: "org/name"."""

    name: str
    commit: str

    @property
    def ref(self) -> str:
        """The reference that opens it: "org/name@commit"."""
        return f"{self.name}@{self.commit}"


def parts_of(path: str) -> list[str]:
    """The places in a reference: a base with its adapter has two. A directory may have a + in its name."""
    base, plus, adapter = path.rpartition("+")
    return [base, adapter] if plus and not os.path.isdir(path) else [path]


def hub_parts(path: str) -> list[HubParent | None]:
    """The model on the Hub that each part of a reference is, None for a directory."""
    found = (_CACHED.search(part) or _NAMED.fullmatch(part) for part in parts_of(path))
    return [match and HubParent(match["name"].replace("--", "/", 1), match["commit"]) for match in found]


def on_the_hub(ref: CheckpointRef) -> list[HubParent]:
    """The models on the Hub in a reference."""
    return [part for part in hub_parts(ref.path) if part is not None]
