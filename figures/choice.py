"""What the reader of a figure may choose from: roles, kinds of picture, layers, and whatever else a result holds."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

from vlsurgery.surgery.errors import SurgeryError

Choice = TypeVar("Choice", str, int)


def chosen(option: str, wanted: Sequence[Choice] | None, there: Iterable[Choice]) -> tuple[Choice, ...]:
    """Those of `there` that are wanted, in the order of `there`; all of them where `wanted` is None.

    option: the parameter's name, for the error. Raises SurgeryError where nothing is wanted, or something that isn't
    there; it names what is.
    """
    known = tuple(dict.fromkeys(there))
    if wanted is None:
        return known
    if isinstance(wanted, str):
        raise SurgeryError(f"{option}: expected a list, found the text {wanted!r}. Write {option}=[{wanted!r}].")
    listed = ", ".join(map(str, known)) or "nothing"
    if not wanted:
        raise SurgeryError(f"{option}: the list is empty, so that nothing would be drawn. Choose from: {listed}.")
    strange = [each for each in wanted if each not in known]
    if strange:
        raise SurgeryError(f"{option}: this result holds no {strange[0]!r}. Choose from: {listed}.")
    return tuple(each for each in known if each in wanted)


def one_of(option: str, wanted: Choice, there: Iterable[Choice]) -> Choice:
    """A single choice, checked in the same way."""
    return chosen(option, [wanted], there)[0]


def leading(option: str, count: int | None) -> int | None:
    """How many to show, counted from the largest. Raises SurgeryError below 1."""
    if count is not None and count < 1:
        raise SurgeryError(f"{option}: expected a whole number from 1 on, found {count!r}. Leave it out to show all.")
    return count
