"""URLs of checkpoints: what is one, which are refused, and what is refused to them."""

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
# A URL as a path has it, in which two slashes are one.
_AS_PATH: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/.*", re.DOTALL)


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
    if ":" in user or (user and scheme in HTTP) or "?" in rest or (scheme in HTTP and "#" in rest):
        raise CheckpointError(
            f"{scheme}://{machine.partition('?')[0]}/...: the URL holds a user with a password, or a query, and "
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


def refuse_urls(refs: Iterable[str], what: str) -> None:
    """Raise CheckpointError for the first reference that is a URL, or has one for its base or adapter.

    what: does not take such checkpoints, and why, as the beginning of a sentence ("probe runs the model").
    """
    for ref in refs:
        url = next((part for part in (ref, ref.rpartition("+")[2]) if is_url(part)), None)
        if url is not None:
            place = checked_url(url)
            tool = COPYING.get(protocol_of(place))
            how = f"`{tool.format(url=place)}`" if tool else "with the store's own tool"
            raise CheckpointError(
                f"{place}: {what}, which needs a directory; anatomy, diff and merge by a recipe or method read "
                f"weights at a URL. Copy the checkpoint to a directory first ({how}), and give that."
            )


def refuse_url_target(out: Path, option: str) -> None:
    """Raise TargetError where what is to be written would go to a URL."""
    match = _AS_PATH.fullmatch(str(out))
    if match is not None and not os.path.exists(f"{match['scheme']}:"):
        raise TargetError(
            f"{option} {out}: a URL, and only directories are written to. Give a directory, and copy it there "
            "afterwards."
        )
