"""Damage to files, drawn by hypothesis: bytes, pieces of text, values of JSON, and other things in a file's place."""

import copy
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st

# What a value may become: other kinds, huge, tiny, deep, and text that leads elsewhere.
VALUES: Final = (
    None, True, 0, -1, 1 << 70, 10**4000, 1e308, float("inf"), float("nan"), "", " ", "..", "../other",
    "/etc/passwd", "/dev/zero",
    "\0", "\ud800", "\u202e", "x" * 400, "x" * 100_000, "\x1b[2J", "\n# a\n", "%s{0}{{x}}", "-1", "1e999", "²",
    "~nobody/x", [], {},
    [[[[]]]], [None], {"": None}, {"a": {"a": []}}, {"\x1b": 1}, "F64", "(a+)+$", ["x"] * 300,
    "data:image/png;base64,AA",
)  # fmt: skip
PIECES: Final = (
    *":-[]{}&*!|>#'\"%@,;\n\r\t ", "  ", "\n  ", "\r\n", "\0", "\x1b", "\x85", "\u2028", "\u202e", "\ufeff",
    "\ud7ff", "null", "NaN",
    "-Infinity", "1e400", "9" * 5000, "0x" + "f" * 300, "[" * 3000, "{\"a\":" * 3000, '"\\ud800"', "a" * 5000, "&a ",
    "*a", "<<: *a",
    "!!python/name:os.system ", "2001-01-01", "yes", "? ", "--- ", "{{ 1/0 }}", "{% for a in range(9**9) %}",
    "{{ x.y.z }}", "{% endif %}",
    "{{ raise_exception('\x1b[2J') }}", "{{ ''.__class__ }}", "{{ 'a' * 10**9 }}", "../", "=", "\\", "\"\"", "\",\"",
)  # fmt: skip
STARTS: Final = (b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\x00\x00", b"\x1f\x8b", b"PK\x03\x04", b"\0")
INSTEAD: Final = ("pipe", "folder", "dead link", "loop", "endless", "empty", "missing")


def damage_bytes(data: st.DataObject, content: bytes) -> bytes:
    """`content` with up to three bytes or stretches changed, cut off, or with another start."""
    spoiled = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(spoiled)))
        spoiled[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    if data.draw(st.integers(0, 9)) == 0:
        del spoiled[data.draw(st.integers(0, len(spoiled))) :]
    if data.draw(st.integers(0, 9)) == 0:
        spoiled[:0] = data.draw(st.sampled_from(STARTS))
    return bytes(spoiled)


def damage_text(data: st.DataObject, content: bytes) -> bytes:
    """`content` with up to four pieces put in place of others, maybe in another encoding."""
    text = content.decode("utf-8", "replace")
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(PIECES)) + text[at + data.draw(st.integers(0, 12)) :]
    encoding = data.draw(st.sampled_from(["utf-8"] * 9 + ["utf-16", "utf-8-sig", "utf-32"]))
    return text.encode(encoding, "surrogatepass")


def damage_json(data: st.DataObject, content: bytes) -> bytes:
    """A JSON text, or one a line, with up to three of its values replaced, removed, renamed or doubled."""
    lines = content.splitlines() if b"\n{" in content else [content]
    at = data.draw(st.integers(0, len(lines) - 1))
    lines[at] = json.dumps(spoil(data, json.loads(lines[at]))).encode()
    return b"\n".join(lines)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something lies in a JSON value, the value itself included."""
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*path, key))


def spoil(data: st.DataObject, value: Any) -> Any:
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(value))[:2000]))
        other = copy.deepcopy(data.draw(st.sampled_from(VALUES)))
        if not path:
            if data.draw(st.integers(0, 9)) == 0:
                return other
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        match data.draw(st.sampled_from(["replace", "replace", "remove", "rename", "double"])):
            case "replace":
                holder[path[-1]] = other
            case "remove":
                del holder[path[-1]]
            case "rename" if isinstance(holder, dict):
                holder[other if isinstance(other, str) else str(other)[:100]] = holder.pop(path[-1])
            case "double" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[path[-1]]))
    return value


def put(data: st.DataObject, path: Path, content: bytes, ways: str) -> None:
    """Put a damaged file in its place: ways are `j` for values of JSON, `t` for text, `b` for bytes. Once in thirty
    times something else than a file is there."""
    if path.is_symlink() or path.exists():
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    if data.draw(st.integers(0, 29)) == 29:
        something_else(path, data.draw(st.sampled_from(INSTEAD)))
        return
    for way in data.draw(st.sampled_from([*ways, ways[0]] + ([ways[0] + ways[-1]] if len(ways) > 1 else []))):
        content = {"j": damage_json, "t": damage_text, "b": damage_bytes}[way](data, content)
    path.write_bytes(content)


def something_else(path: Path, kind: str) -> None:
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "dead link":
            path.symlink_to(path.with_name("nowhere"))
        case "loop":
            path.symlink_to(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "empty":
            path.touch()
