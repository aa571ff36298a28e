"""URLs of checkpoints: what is one, which are refused, and where none is taken."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from vlsurgery.surgery.errors import CheckpointError, TargetError

HTTP: Final = ("http", "https")
# Protocol -> how its own tool copies a folder.
COPYING: Final = {
    **dict.fromkeys(("s3", "s3a"), "aws s3 cp --recursive {url} DIR"),
    **dict.fromkeys(("gs", "gcs"), "gcloud storage cp --recursive {url} DIR"),
}

_URL: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<rest>.*)", re.DOTALL)
# A host, with a port of digits: what else follows a colon may be a password with a slash in it.
_MACHINE: Final = re.compile(r"(?:\[[\da-fA-F:.]*\]|[^:?#]*)(?::\d+)?")
# A URL as a path has it, in which two slashes are one.
_AS_PATH: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+(?P<rest>.*)", re.DOTALL)
WRITTEN_TO: Final = "only directories of this machine are written to. Give one, and copy it there afterwards"


def is_url(ref: str) -> bool:
    """Whether a reference is a URL. A directory of that name wins."""
    return _URL.fullmatch(ref) is not None and not os.path.exists(ref)


def protocol_of(url: str) -> str:
    """The protocol of a URL ("s3"), in small letters."""
    return url.partition("://")[0].lower()


def checked_url(ref: str) -> str:
    """A URL without slashes at its end.

    Raises CheckpointError for one that would carry a secret into the files that name it, which is not shown then; and
    for one that stands for what has a simpler name.
    """
    match = _URL.fullmatch(ref)
    assert match is not None, ref
    scheme, rest = match["scheme"].lower(), match["rest"].rstrip("/")
    host = rest.partition("/")[0]
    user, _, machine = host.rpartition("@")
    shown = _MACHINE.match(machine)
    odd = scheme in HTTP and (bool(user) or "#" in rest or not _MACHINE.fullmatch(machine))
    if ":" in user or "?" in rest or odd:
        raise CheckpointError(
            f"{scheme}://{shown[0] if shown else ''}/...: the URL holds a user with a password, or a query, and "
            "would be written with it into cases, recipes and cards. Take that out of the URL, and give credentials by "
            "environment variables or the store's own file (AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS, ~/.netrc)."
        )
    if scheme in ("file", "local"):
        raise CheckpointError(f"{ref}: lies on this machine. Give its path, without {scheme}://.")
    if scheme == "hf":
        raise CheckpointError(f"{ref}: a model on the Hub goes by its name. Give org/name or org/name@revision.")
    if not rest:
        raise CheckpointError(f"{ref}: names no place. Give the folder that holds config.json and the weights.")
    return f"{scheme}://{rest}"


def refuse_urls(refs: Iterable[str], command: str) -> None:
    """Raise CheckpointError for the first reference that is a URL, or has one for its base or adapter: a command that
    runs models needs them in directories."""
    for ref in refs:
        url = next((part for part in (ref, ref.rpartition("+")[2]) if is_url(part)), None)
        if url is not None:
            place = checked_url(url.partition("+")[0] if url == ref else url)
            tool = COPYING.get(protocol_of(place))
            how = f"`{tool.format(url=place)}`" if tool else "with the store's own tool"
            raise CheckpointError(
                f"{place}: {command} runs models, and needs them in directories: anatomy, diff, and merge by a recipe "
                f"or a method, read weights at a URL. Copy the checkpoint to a directory ({how}), and give that."
            )


def refuse_url_path(path: Path, why: str) -> None:
    """Raise TargetError where a path, which has one slash where two were given, was meant as a URL. why: paths alone
    are taken, and what to do ("only directories are written to. Give one")."""
    match = _AS_PATH.fullmatch(str(path))
    if match is not None and not os.path.exists(f"{match['scheme']}:"):
        raise TargetError(f"{match['scheme']}://{match['rest']}: a URL, and {why}.")
