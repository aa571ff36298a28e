"""From rows of files to prompts: their keys and splits, repeats, and the pictures that each is asked with."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from vlsurgery.probes.prompts.album import Album, blank_picture
from vlsurgery.probes.prompts.english import CONTROLS
from vlsurgery.probes.prompts.picture_files import check_picture
from vlsurgery.probes.prompts.pictures import noise
from vlsurgery.probes.prompts.prompt import Modality, Picture, Prompt
from vlsurgery.probes.prompts.records import file_digest
from vlsurgery.probes.prompts.rows import Row
from vlsurgery.probes.prompts.splits import Split, seeded_unit, split_of
from vlsurgery.surgery.errors import SurgeryError

SLUG_LENGTH = 40  # characters of a prompt's text that stand in its id, to be recognised by


@dataclass(frozen=True)
class KeyedRow:
    """A checked row with its keys.

    key: equal for rows that ask the same thing in the same way, that is set, request and text apart from case and
        spacing, and the bytes of the picture; it begins the ids of the row's prompts, whatever file the row is in.
    """

    row: Row
    key: str
    request: str
    split: Split

    def prompts(self, seed: int, album: Album, controlled: Collection[str]) -> Iterator[Prompt]:
        """The row's prompts: with its own picture, or without and with others. controlled: requests that get blank
        and noise pictures."""
        row = self.row
        for modality, image in self._views(seed, album, controlled).items():
            name = f"{self.key}/{modality}"
            yield Prompt(name, self.request, row.set, row.text, self.split, modality, image, row.answer or None)

    def _views(self, seed: int, album: Album, controlled: Collection[str]) -> dict[Modality, Picture | None]:
        if self.row.picture:
            return {"own": self.row.picture}
        views: dict[Modality, Picture | None] = {
            "text": None,
            "benign": album.draw(self.request, seed),
        }
        if self.row.set == "harmful" and self.request in controlled:
            views |= {"blank": blank_picture(), "noise": noise(self.request)}
        return views


def keyed(row: Row, seed: int) -> KeyedRow:
    """A row with its keys. Raises SurgeryError where it can't be asked."""
    _check(row)
    pixels = file_digest(row.picture) if row.picture else ""
    # The same question on two pictures is two requests.
    request = plain(row.request or (f"{row.text} [picture {pixels[:16]}]" if pixels else row.text))
    slug = "-".join(re.findall(r"[a-z0-9]+", row.text.lower()))[:SLUG_LENGTH].strip("-")
    digest = hashlib.sha256(json.dumps([request, plain(row.text), pixels]).encode()).hexdigest()[:16]
    name = "-".join(filter(None, [slug, digest]))
    return KeyedRow(row, f"{row.set}/{name}", request, split_of(request, seed))


def plain(text: str) -> str:
    """A text without differences of case and spacing."""
    return " ".join(text.casefold().split())


def add_new(known: dict[str, KeyedRow], rows: Iterable[KeyedRow]) -> int:
    """Add the rows to those known by key, and return how many were known already.

    Raises SurgeryError where two that ask the same have different answers.
    """
    repeats = 0
    for each in rows:
        first = known.setdefault(each.key, each).row
        repeats += first is not each.row
        if plain(first.answer or "") != plain(each.row.answer or ""):
            raise SurgeryError(
                f"{each.row.where}: asks what {first.where} asks, with the answer {each.row.answer!r} instead of "
                f"{first.answer!r}. Keep one of them."
            )
    return repeats


def check_sides(rows: Iterable[KeyedRow]) -> None:
    """Raise SurgeryError where the same words are harmful in one place and harmless in another."""
    asked = [each.row for each in rows if each.row.picture is None]
    harmful = {plain(row.text): row for row in asked if row.set == "harmful"}
    for row in asked:
        other = harmful.get(plain(row.text))
        if row.set == "harmless" and other:
            raise SurgeryError(f"{row.where}: is harmless here and harmful in {other.where}. Remove one of them.")


def controlled_requests(rows: Iterable[KeyedRow], seed: int) -> set[str]:
    """The harmful requests of `report` that also come with a blank and a noise picture, CONTROLS at most."""
    found = {
        each.request
        for each in rows
        if each.row.set == "harmful" and each.split == "report" and each.row.picture is None
    }
    return set(sorted(found, key=lambda request: (seeded_unit(request, seed), request))[:CONTROLS])


def _check(row: Row) -> None:
    if not any(_is_seen(letter) for letter in row.text):
        raise SurgeryError(f"{row.where}: the prompt is empty. Fill it in or remove the line.")
    if row.set == "capability" and not row.answer:
        raise SurgeryError(
            f"{row.where}: a capability prompt needs a right answer, found none. Give it an 'answer' (in a .jsonl, "
            ".json, .csv or .tsv file), or load the file as another kind."
        )
    for text in (row.text, row.answer, row.request, str(row.picture)):
        broken = re.search("[\ud800-\udfff]", text or "")
        if broken:
            raise SurgeryError(
                f"{row.where}: holds half of a surrogate pair (\\u{ord(broken[0]):04x}), which is no character. "
                "Write the whole pair, or the character itself."
            )
        if "\0" in (text or ""):
            raise SurgeryError(f"{row.where}: holds a NUL character, which is no text. Remove it.")
    if row.picture:
        check_picture(row.picture, row.where)


def _is_seen(letter: str) -> bool:
    """Whether a character shows: it is no space, and no mark of format or control such as a zero-width space."""
    return not letter.isspace() and unicodedata.category(letter) not in ("Cc", "Cf")
