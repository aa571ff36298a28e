"""Regular expressions from elsewhere, matched with modules' paths in bounded time.

An adapter's settings name modules by patterns. Python's own matcher may take years for one of them, and can't be
stopped. Here a pattern is followed at all places of the path at once, so that nothing is tried twice, and its steps are
counted. It reads what patterns of module names are made of: characters, `.`, classes, groups, `|`, repetition, `^` and
`$`. Look-around, back references and flags are refused.
"""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache, reduce
from typing import Final

from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.excerpts import excerpt

MAX_LENGTH: Final = 2_000  # characters of a pattern, and of a path
MAX_REPEATS: Final = 1_000
MAX_DEPTH: Final = 20  # groups inside of groups
MAX_STEPS: Final = 500_000  # places looked at for one path; a large adapter's pattern takes a few thousand

_REPEAT: Final = re.compile(r"(?:([*+?])|\{(\d{0,4})(,?)(\d{0,4})\})")
_CLASS: Final = re.compile(r"\[\^?\]?(?:[^\]\\]|\\.)*\]", re.DOTALL)

Places = frozenset[int]


class _Path:
    """A path that is being matched, and how many steps that took so far."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.steps = 0

    def count(self, steps: int) -> None:
        self.steps += steps + 1
        if self.steps > MAX_STEPS:
            raise OverflowError


# From the places where a part of a pattern may begin to those where it may end.
_Part = Callable[[_Path, Places], Places]


def check_pattern(pattern: str) -> None:
    """Raise ValueError, which says why, for a pattern that can't be read."""
    _compiled(pattern)


def fits(pattern: str, path: str) -> bool:
    """Whether a pattern is the whole of a module's path, or of what stands behind one of its dots.

    Raises ValueError for a pattern that can't be read, CheckpointError for one that takes too many steps.
    """
    if pattern.replace("_", "").isalnum() and pattern.isascii():  # a module's own name, as it mostly is
        return path == pattern or path.endswith(f".{pattern}")
    part = _compiled(pattern)
    if len(path) > MAX_LENGTH:
        raise CheckpointError(f"{excerpt(path)}: a name of {len(path)} characters, more than {MAX_LENGTH}.")
    starts = frozenset([0, *(place + 1 for place, letter in enumerate(path) if letter == ".")])
    try:
        return len(path) in part(_Path(path), starts)
    except OverflowError:
        raise CheckpointError(
            f"{excerpt(path)}: to match the pattern {excerpt(pattern)} with it takes too long. Name modules in the "
            "adapter's settings by plainer patterns."
        ) from None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> _Part:
    if len(pattern) > MAX_LENGTH:
        raise ValueError(f"of at most {MAX_LENGTH} characters")
    reader = _PatternReader(pattern)
    part = reader.choice(0)
    if reader.place != len(pattern):
        raise ValueError(f"a bracket without its partner at character {reader.place}")
    return part


class _PatternReader:
    """Reads a pattern from left to right; each method returns the part that it read."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.place = 0

    @property
    def next(self) -> str:
        return self.pattern[self.place : self.place + 1]

    def choice(self, depth: int) -> _Part:
        """Sequences between `|`."""
        if depth > MAX_DEPTH:
            raise ValueError(f"of at most {MAX_DEPTH} groups inside of each other")
        ways = [self.sequence(depth)]
        while self.next == "|":
            self.place += 1
            ways.append(self.sequence(depth))
        return ways[0] if len(ways) == 1 else _any_of(ways)

    def sequence(self, depth: int) -> _Part:
        parts: list[_Part] = []
        while self.next not in ("", "|", ")"):
            part = self.atom(depth)
            parts.append(self.repeated(part))
        return _in_turn(parts)

    def atom(self, depth: int) -> _Part:
        """A group, an anchor, or what fits one character."""
        letter, start = self.next, self.place
        self.place += 1
        if letter == "(":
            return self.group(depth)
        if letter in "^$":
            return _anchor(at_end=letter == "$")
        if letter in "*+?" or (letter == "{" and _REPEAT.match(self.pattern, start)):
            raise ValueError(f"nothing to repeat at character {start}")
        if letter == "\\":
            kind, self.place = self.next, self.place + 1
            if kind == "" or (kind.isalnum() and kind not in "dDsSwW"):
                raise ValueError(f"without \\{kind} at character {start}")
        elif letter == "[":
            found = _CLASS.match(self.pattern, start)
            if found is None:
                raise ValueError(f"a bracket without its partner at character {start}")
            self.place = found.end()
        return _one(self.pattern[start : self.place])

    def group(self, depth: int) -> _Part:
        named = re.compile(r"\?(?::|P<\w{1,80}>)").match(self.pattern, self.place)
        if named:
            self.place = named.end()
        elif self.next == "?":
            raise ValueError(f"without look-around and flags, as at character {self.place - 1}")
        part = self.choice(depth + 1)
        if self.next != ")":
            raise ValueError("a bracket without its partner")
        self.place += 1
        return part

    def repeated(self, part: _Part) -> _Part:
        """The part, with the repetition behind it if there is one."""
        found = _REPEAT.match(self.pattern, self.place)
        if found is None or found[0] == "{}":
            return part
        self.place = found.end()
        if self.next == "?":  # As few as possible or as many: that is the same to a path as a whole.
            self.place += 1
        if self.next and self.next in "*+?":
            raise ValueError(f"without repeated repetition, as at character {self.place}")
        fewest, most = _counts(found)
        if fewest > MAX_REPEATS or (most or 0) > MAX_REPEATS or (most is not None and most < fewest):
            raise ValueError(f"of at most {MAX_REPEATS} repeats, the fewest first")
        return _repeat(part, fewest, most)


def _counts(found: re.Match[str]) -> tuple[int, int | None]:
    sign, fewest, comma, most = found.groups()
    if sign:
        return int(sign == "+"), 1 if sign == "?" else None
    least = int(fewest or 0)
    return least, (int(most) if most else None) if comma else least


def _one(spelling: str) -> _Part:
    """One character that fits `spelling`, which has no repetition in it."""
    try:
        match = re.compile(spelling).fullmatch
    except re.error as error:
        raise ValueError(str(error)) from error

    def ends(path: _Path, starts: Places) -> Places:
        path.count(len(starts))
        return frozenset(start + 1 for start in starts if match(path.text, start, start + 1))

    return ends


def _anchor(at_end: bool) -> _Part:
    return lambda path, starts: starts & {len(path.text) if at_end else 0}


def _in_turn(parts: Iterable[_Part]) -> _Part:
    parts = tuple(parts)
    return lambda path, starts: reduce(lambda places, part: part(path, places) if places else places, parts, starts)


def _any_of(ways: Iterable[_Part]) -> _Part:
    ways = tuple(ways)
    return lambda path, starts: frozenset().union(*(way(path, starts) for way in ways))


def _repeat(part: _Part, fewest: int, most: int | None) -> _Part:
    def ends(path: _Path, starts: Places) -> Places:
        for _ in range(fewest):
            path.count(0)
            starts = part(path, starts)
        found = new = starts
        left = most - fewest if most is not None else len(path.text) + 1
        while new and left:
            path.count(0)
            new = part(path, new) - found
            found |= new
            left -= 1
        return found

    return ends
