"""The models behind an endpoint that a command names."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vlsurgery.cli.options import Running, Session
from vlsurgery.surgery.errors import SurgeryError

if TYPE_CHECKING:
    from vlsurgery.probes.endpoint import Interviewed, ServedModel
    from vlsurgery.probes.evaluation.completions import CompletionFile
    from vlsurgery.probes.prompts import Prompt

# Options of a `Running` that say how models run on this machine, by their values' names there.
_LOCAL = {"--dtype": "dtype", "--device": "device", "--memory": "memory", "--trust-remote-code": "trust_remote_code"}


def served_by(
    url: str | None,
    names: Sequence[str] | None,
    variable: str | None,
    connections: int | None,
    models: Sequence[str],
    running: Running,
) -> "list[ServedModel]":
    """The models of --endpoint, by the values of its options; none without it.

    models: those that are run here, beside. Raises SurgeryError for options that go with others, and for models of one
    name.
    """
    given = {"--model": names, "--api-key-env": variable, "--connections": connections}
    if url is None:
        for option, value in given.items():
            if value:
                raise SurgeryError(f"{option} goes with --endpoint, which says where the model is.")
        return []
    from vlsurgery.probes.endpoint import DEFAULT_CONNECTIONS, Endpoint, served_models, served_names

    for option, value in _LOCAL.items():
        if getattr(running, value) and not models:
            raise SurgeryError(f"{option} is for models that run here; what --endpoint serves, its server runs.")
    endpoint = Endpoint.of(url, variable)
    if not names:
        listed = ", ".join(served_names(endpoint))
        told = f"It serves: {listed}." if listed else "It does not say what it serves."
        raise SurgeryError(f"--endpoint {endpoint.url}: name the model to ask with --model. {told}")
    thinking = {"on": True, "off": False}.get(running.thinking or "default")
    return served_models(endpoint, names, connections or DEFAULT_CONNECTIONS, thinking)


def beside(roles: Collection[str], served: "ServedModel") -> "ServedModel":
    """A served model under its whole name, where its role is one of a model that is run here."""
    if served.role not in roles:
        return served
    if served.name in roles:
        raise SurgeryError(f"--model {served.name}: a MODEL that is run here has this name too. Ask one of them.")
    return replace(served, role=served.name)


def interviewed(
    session: Session,
    served: "ServedModel",
    prompts: "Sequence[Prompt]",
    tokens: int,
    file: "CompletionFile | None",
) -> "Interviewed":
    """What a served model says to the `report` prompts. tokens: of a completion, at most. file: where it is kept."""
    from vlsurgery.probes.endpoint import interview
    from vlsurgery.probes.evaluation.completion_store import CompletionStore, asked_digest

    if served.endpoint.exposes_key:
        session.console.say(f"the key of {served.endpoint.variable} goes unencrypted to {served.endpoint.url}")
    report = [prompt for prompt in prompts if prompt.split == "report"]
    store = CompletionStore(asked_digest(report, served.thinking), tokens, file)
    return interview(served, report, store, session.console.progress)
