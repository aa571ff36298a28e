"""A model behind an endpoint, as an evaluation names and identifies it."""

import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from vlsurgery.probes.endpoint.address import Endpoint
from vlsurgery.probes.endpoint.errors import EndpointError
from vlsurgery.surgery.results import CheckpointRef

DEFAULT_CONNECTIONS: Final = 16


@dataclass(frozen=True)
class ServedModel:
    """A model that a server runs.

    role: its name in results. name: as the server knows it. connections: requests at a time. thinking: what the chat
    template is told of thoughts; None tells it nothing.
    """

    role: str
    name: str
    endpoint: Endpoint
    connections: int = DEFAULT_CONNECTIONS
    thinking: bool | None = None

    @property
    def no_kl(self) -> str:
        """Why it has no KL from an adapted model."""
        return "its endpoint gives completions alone, and a KL takes the probabilities of all tokens"

    def identity(self, told: str | None) -> str:
        """What the model is, as far as can be known from outside, in 16 hexadecimal digits.

        told: what the server says that it is. Weights that were exchanged under the same names are not noticed.
        """
        parts = json.dumps([self.endpoint.url, self.name, told])
        return hashlib.sha256(parts.encode()).hexdigest()[:16]

    def ref(self, told: str | None) -> CheckpointRef:
        """How results refer to it."""
        return CheckpointRef(path=f"{self.endpoint.url} {self.name}", identity=self.identity(told))


def served_models(
    endpoint: Endpoint,
    names: Sequence[str],
    connections: int = DEFAULT_CONNECTIONS,
    thinking: bool | None = None,
    taken: Collection[str] = (),
) -> list[ServedModel]:
    """The models of these names. A role is the last part of a name, or the whole name where that is taken.

    taken: roles of other models. Raises EndpointError for a name that is none, or is given twice.
    """
    found: dict[str, ServedModel] = {}
    for name in names:
        last = name.rstrip("/").rpartition("/")[2]
        role = name if last in found or last in taken else last
        if not role.strip() or role in found or role in taken:
            raise EndpointError(f"--model {name!r}: there is another model of this name. Name each once.")
        found[role] = ServedModel(role, name, endpoint, connections, thinking)
    return list(found.values())
