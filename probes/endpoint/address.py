"""Where an endpoint is, and the key to it, which is never shown."""

import os
import re
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from vlsurgery.probes.endpoint.errors import EndpointError

KEY_VARIABLE: Final = "OPENAI_API_KEY"
EXAMPLE: Final = "http://localhost:8000/v1"

# Letters of a key from which on it is taken out of all that the server says; shorter ones are no secrets (EMPTY).
MIN_SECRET_LETTERS: Final = 8

_LOCAL: Final = re.compile(r"localhost|127(?:\.\d+){3}|::1")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Endpoint:
    """A server that speaks OpenAI's protocol for chat completions.

    url: its base, without a slash at the end. key: sent with every request; None for none. variable: of the
    environment, which held it.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    variable: str = KEY_VARIABLE

    @classmethod
    def of(cls, url: str, variable: str | None = None) -> "Endpoint":
        """The endpoint at a URL, with the key that a variable of the environment holds.

        url: http or https; where it names no path, /v1 is added. variable: OPENAI_API_KEY where it isn't given, which
        may be unset. Raises EndpointError, which never shows a key or a password.
        """
        return cls(_base(url), _key(variable), variable or KEY_VARIABLE)

    @property
    def exposes_key(self) -> bool:
        """Whether the key travels unencrypted to another machine."""
        parts = urlsplit(self.url)
        return self.key is not None and parts.scheme == "http" and not _LOCAL.fullmatch(parts.hostname or "")

    def without_key(self, text: str) -> str:
        """A text that the server wrote, without the key, should it be in there."""
        if self.key is None or len(self.key) < MIN_SECRET_LETTERS:
            return text
        return text.replace(self.key, f"[{self.variable}]")


def _base(url: str) -> str:
    """The URL in one spelling: without what is the default, and without the path of single requests."""
    shown = re.split(r"[?#]", url.rpartition("@")[2])[0]
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise EndpointError(f"--endpoint {shown}: no URL. Expected one such as {EXAMPLE}.") from error
    if "@" in parts.netloc:
        raise EndpointError(
            f"--endpoint {shown}: holds a user name or a password, which would be kept with results. Leave it out, and "
            f"put the key into {KEY_VARIABLE} or the variable of --api-key-env."
        )
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise EndpointError(f"--endpoint {shown}: expected an http or https URL such as {EXAMPLE}.")
    if parts.query or parts.fragment:
        raise EndpointError(f"--endpoint {shown}: goes on behind ? or #. Leave that out.")
    path = parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"
    place = f"[{host}]" if ":" in host else host
    if port is not None and port != {"http": 80, "https": 443}[parts.scheme]:
        place = f"{place}:{port}"
    return f"{parts.scheme}://{place}{path}"


def _key(variable: str | None) -> str | None:
    """The key; None where no variable was named and OPENAI_API_KEY is unset."""
    if variable is not None and not _NAME.fullmatch(variable):
        raise EndpointError(
            "--api-key-env: expected the name of a variable of the environment, and not the key itself, which other "
            "users of this machine could read there."
        )
    key = os.environ.get(variable or KEY_VARIABLE, "").strip()
    if not key and variable is not None:
        raise EndpointError("--api-key-env: the environment has no such variable. Export it, or name another.")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise EndpointError(
            f"{variable or KEY_VARIABLE}: holds letters that a key can't have. Set it to the key alone."
        )
    return key or None
