"""What a Hub's replies may say: names, hashes and sizes are checked before anything makes a path of them."""

import re
from collections.abc import Mapping
from typing import Any, Final

from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.bounded_json import parse_json
from vlsurgery.surgery.runtime.excerpts import excerpt

COMMIT: Final = re.compile(r"[0-9a-f]{40}")

# An ETag becomes the name of a file in the cache.
_ETAG: Final = re.compile(r"(?:W/)?\"?[A-Za-z0-9][A-Za-z0-9.+=_:-]{0,199}\"?")
# Control characters, and halves of a surrogate pair.
_UNFIT: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

# What of a model an address asks for: nothing is the model itself.
_ACTION: Final = re.compile(r".*?/api/models/[^/]+/[^/]+/?([^/]*).*")

_ETAGS: Final = ("ETag", "X-Linked-Etag")


class ReplyError(CheckpointError):
    """What a server sent can't be used, or is not trusted."""


def check_headers(headers: Mapping[str, str]) -> None:
    """Raise ReplyError where a header that names a file or a folder of the cache is no plain hash."""
    for key in _ETAGS:
        if key in headers and not _ETAG.fullmatch(headers[key]):
            raise _strange(f"{key} {excerpt(headers[key])}", "a hash")
    commit = headers.get("X-Repo-Commit")
    if commit is not None and not COMMIT.fullmatch(commit):
        raise _strange(f"X-Repo-Commit {excerpt(commit)}", "40 hexadecimal digits")


def check_reply(path: str, content: bytes) -> None:
    """Raise ReplyError where a reply of the API, at the URL path `path`, is not what a Hub sends there."""
    try:
        reply = parse_json(content)
    except ValueError as error:
        raise _strange(f"{content[:40]!r}", "JSON") from error
    action = _ACTION.fullmatch(path)
    if action is not None and action[1].startswith("xet-"):
        return
    if action is not None and action[1] == "tree":
        for entry in _list(reply, "a list of files"):
            _check_entry(entry)
        return
    if not isinstance(reply, dict):
        raise _strange(f"{content[:40]!r}", "a description of a model")
    sha = reply.get("sha")
    if not isinstance(sha, str) or not COMMIT.fullmatch(sha):
        raise _strange(f"the commit {excerpt(sha)}", "40 hexadecimal digits")
    for entry in _list(reply.get("siblings") or [], "a list of files"):
        _check_file(entry.get("rfilename") if isinstance(entry, dict) else None)


def _check_entry(entry: object) -> None:
    """One entry of a listing: a folder, or a file with its size and the hashes that name it in the cache."""
    if not isinstance(entry, dict):
        raise _strange(f"the entry {excerpt(entry)}", "a file or a folder")
    _check_file(entry.get("path"))
    if entry.get("type") == "directory":
        return
    _check_hash(entry.get("oid"))
    _check_size(entry.get("size"))
    large = entry.get("lfs")
    if large is not None:
        if not isinstance(large, dict):
            raise _strange(f"the entry {excerpt(large)}", "a large file's hash and size")
        _check_hash(large.get("oid", large.get("sha256")))
        _check_size(large.get("size"))
    if entry.get("xetHash") is not None:
        _check_hash(entry["xetHash"])


def _check_file(name: object) -> None:
    parts = re.split(r"[/\\]", name) if isinstance(name, str) else [""]
    if not isinstance(name, str) or _UNFIT.search(name) or any(part in ("", ".", "..") for part in parts):
        raise _strange(f"the file name {excerpt(name)}", "a path inside of the model")


def _check_hash(value: object) -> None:
    if not isinstance(value, str) or not _ETAG.fullmatch(value):
        raise _strange(f"the hash {excerpt(value)}", "hexadecimal digits")


def _check_size(value: object) -> None:
    if type(value) is not int or value < 0:
        raise _strange(f"the size {excerpt(value)}", "a count of bytes")


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise _strange(f"{excerpt(value)}", what)
    return value


def _strange(found: str, expected: str) -> ReplyError:
    return ReplyError(
        f"the server's reply has {found} where {expected} was expected. Do not trust it: check HF_ENDPOINT, or "
        "download the model elsewhere and give its folder."
    )
