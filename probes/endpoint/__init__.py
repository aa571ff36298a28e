"""Models that a server runs: asked over HTTP by OpenAI's protocol, which vLLM and most other servers speak.

A small client on httpx, which huggingface_hub brings along, and not the providers of inspect_ai: what is needed is one
kind of request, and bounds that those don't have (on replies, redirects, waits), without an extra to install.
"""

from vlsurgery.probes.endpoint.address import KEY_VARIABLE, Endpoint
from vlsurgery.probes.endpoint.errors import EndpointError
from vlsurgery.probes.endpoint.interview import Interviewed, interview, served_names
from vlsurgery.probes.endpoint.served import DEFAULT_CONNECTIONS, ServedModel, served_models

__all__ = [
    "DEFAULT_CONNECTIONS",
    "KEY_VARIABLE",
    "Endpoint",
    "EndpointError",
    "Interviewed",
    "ServedModel",
    "interview",
    "served_models",
    "served_names",
]
