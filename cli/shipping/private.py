"""What must not leave this machine: its paths, and anything that opens an account."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from vlsurgery.surgery.checkpoint.hub import HubName
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.bounded_json import parse_json
from vlsurgery.surgery.runtime.urls import is_url

# Settings in which libraries keep the place that a model was loaded from.
ORIGINS: Final = ("_name_or_path", "name_or_path", "base_model_name_or_path")
# Tokens of the Hub, of GitHub, GitLab, Slack and AWS, keys of model providers, and private keys, by their form.
TOKENS: Final = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{20,}|gh[oprsu]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,}|AKIA[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{35}|sk-[A-Za-z0-9_-]{30,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
# Variables of the environment that hold a secret, by their names, and the letters that one has at least.
SECRET_VARIABLE: Final = re.compile(r"(?:KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)
MIN_SECRET_LETTERS: Final = 16


class PrivateWords:
    """The places of this machine and the secrets that a text is searched for.

    places: directories of the checkpoints and of the case, beside the home directory. secrets: their values, beside
    those that the environment holds.
    """

    def __init__(self, places: Iterable[str], secrets: Iterable[str]) -> None:
        places = list(places)
        whole = {os.path.abspath(place) for place in places}
        whole |= {os.path.realpath(place) for place in whole} | {place for place in places if is_url(place)}
        home = os.path.expanduser("~")
        # Not what is as short as a word of some language, such as /app; a home is looked for with what is in it.
        known = [place for place in whole if place.count(os.sep) > 1]
        self._places = sorted([*known, *([home + os.sep] if home.strip(os.sep + "~") else [])], key=len, reverse=True)
        self._secrets = [secret for secret in (*secrets, *_in_environment()) if secret]

    def check(self, file: str, text: str) -> None:
        """Raise CheckpointError where the text holds one of them; a secret is not shown."""
        if any(secret in text for secret in self._secrets) or TOKENS.search(text):
            raise CheckpointError(
                f"{file}: holds what looks like an access token or a key. Take it out of the parent's file, merge "
                "again, and revoke it if anybody may have seen it. Nothing was sent."
            )
        spelt = text.replace("\\/", "/")
        found = next((place for place in self._places if place in spelt), None)
        if found is not None:
            raise CheckpointError(
                f"{file}: names {found}, a place of this machine. Take it out of the parent's file and merge again. "
                "Nothing was sent."
            )


def _in_environment() -> list[str]:
    """What variables hold that are called as secrets are, such as OPENAI_API_KEY."""
    named = (value for name, value in os.environ.items() if SECRET_VARIABLE.search(name))
    return [value for value in named if len(value) >= MIN_SECRET_LETTERS]


def without_origins(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without those that tell where a model was loaded from, unless that is a name on the Hub; inner ones
    too."""
    return {
        key: _inner(value)
        for key, value in settings.items()
        if key not in ORIGINS or (isinstance(value, str) and HubName.of(value) is not None)
    }


def _inner(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_origins(value)
    return [_inner(each) for each in value] if isinstance(value, list) else value


def json_without_origins(content: bytes) -> bytes | None:
    """A JSON file without such settings; None where it has none, or is no JSON object."""
    if not any(f'"{name}"'.encode() in content for name in ORIGINS):
        return None
    try:
        settings = parse_json(content)
    except ValueError:
        return None
    if not isinstance(settings, dict) or (cleaned := without_origins(settings)) == settings:
        return None
    return (json.dumps(cleaned, indent=2, ensure_ascii=False) + "\n").encode()
