"""Prompts from files: the user's own lists, and published data sets in their authors' layout."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vlsurgery.probes.prompts.album import album_of, scenes
from vlsurgery.probes.prompts.asking import KeyedRow, add_new, check_sides, controlled_requests, keyed
from vlsurgery.probes.prompts.prompt import SETS, Prompt
from vlsurgery.probes.prompts.published import DATA_SETS
from vlsurgery.probes.prompts.records import file_digest
from vlsurgery.probes.prompts.rows import Row, user_rows
from vlsurgery.surgery.errors import SurgeryError

PLACEHOLDER = "<image>"  # how many chat formats mark the place of a picture

# Special tokens of published chat formats, as prompts that quote them write them.
_RESERVED = re.compile(r"</?s>|<[|｜][^|｜<>\n]{1,40}[|｜]>|<(?:start|end)_of_turn>|\[/?INST\]")

READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    **{name: partial(user_rows, prompt_set=name) for name in SETS},
    **DATA_SETS,
}
KINDS: tuple[str, ...] = tuple(READERS)


@dataclass(frozen=True)
class PromptFiles:
    """What files of prompts hold. notes: what to know of it, a line each."""

    prompts: list[Prompt]
    notes: list[str]


def load_prompts(spec: str, seed: int = 0, images: Path | str | None = None) -> list[Prompt]:
    """The prompts of one file, in its order; see `load_prompt_files`."""
    return load_prompt_files([spec], seed, images).prompts


def load_prompt_files(specs: Sequence[str], seed: int = 0, images: Path | str | None = None) -> PromptFiles:
    """The prompts of files, each FILE:KIND; the order of the files changes nothing.

    KIND is a prompt set, for a file of one's own:
      .txt          a prompt a line; empty lines are skipped
      .csv, .tsv    a column of COLUMNS, and where wanted the columns answer, request, image
      .jsonl        a line an object: "prompt", and where wanted "answer", "request", "image"
      .json         a list of such objects
    or the name of a data set in its published files (DATA_SETS): advbench, harmbench, strongreject, jailbreakbench,
    xstest (its unsafe half is harmful, its safe half borderline), or-bench (borderline; its toxic file harmful),
    mm-safetybench with .sd, .sd_typo or .typo for the kind of picture, figstep, vlguard, mossbench, siuo. Spelling
    may differ in case, hyphens and underscores.

    "request" joins prompts that ask the same thing (a twin, a jailbreak), across files too; without it a prompt is
    its own request, or the prompt and its picture are. It may differ in case and spacing. A `capability` prompt needs
    an "answer". What is asked twice is asked once. "image" is relative to the file, and becomes the prompt's `own`
    picture. Without one a prompt is asked as text and with an ordinary picture (`benign`), and up to CONTROLS harmful
    requests of `report` with a blank and a noise picture too.

    images: a folder of ordinary pictures, in place of drawn ones. Which one a request gets depends on request, seed
    and folder alone. Splits by `split_of`. Raises SurgeryError that names the file, the line and what to do.
    """
    album = scenes() if images is None else album_of(Path(images).expanduser())
    given = dict.fromkeys(split_spec(spec) for spec in specs)
    # By content, so that neither their order nor their names change what is asked.
    files = sorted(given, key=lambda each: (KINDS.index(each[1]), file_digest(each[0]), str(each[0])))
    rows: dict[str, KeyedRow] = {}
    notes = []
    for path, kind in files:
        read = [keyed(row, seed) for row in READERS[kind](path)]
        if not read:
            raise SurgeryError(f"{path}: holds no prompts. Put at least one into it.")
        repeats = add_new(rows, read)
        if repeats:
            notes.append(f"{path}: {repeats} of {len(read)} prompts repeat others, and are asked once")
    check_sides(rows.values())
    marked = sum(PLACEHOLDER in each.row.text for each in rows.values())
    if marked:
        hold = "prompt holds" if marked == 1 else "prompts hold"
        notes.append(f"{marked} {hold} the word {PLACEHOLDER}: it is asked as text and stands for no picture")
    reserved = [found[0] for each in rows.values() if (found := _RESERVED.search(each.row.text))]
    if reserved:
        hold = "prompt holds" if len(reserved) == 1 else "prompts hold"
        notes.append(f"{len(reserved)} {hold} marks of chat formats ({reserved[0]}): they are asked as words")
    controlled = controlled_requests(rows.values(), seed)
    return PromptFiles([prompt for each in rows.values() for prompt in each.prompts(seed, album, controlled)], notes)


def split_spec(spec: str) -> tuple[Path, str]:
    """The path and the kind, one of KINDS, of FILE:KIND."""
    name, colon, kind = spec.rpartition(":")
    if not colon or not name:
        raise SurgeryError(f"{spec!r} is not FILE:KIND. KIND is one of {', '.join(KINDS)}.")
    found = next((known for known in KINDS if _squeezed(known) == _squeezed(kind)), None)
    if found is None:
        raise SurgeryError(f"{spec}: unknown kind {kind!r}. Expected one of {', '.join(KINDS)}.")
    return Path(name).expanduser(), found


def without_repeats(own: Sequence[Prompt], given: Sequence[Prompt]) -> list[Prompt]:
    """The prompts of `own` whose requests are nowhere in `given`.

    The two are split by different rules, so a request in both could be in two splits. A request is left out with its
    twin and its wrapped forms when any of its prompts has the words of a given prompt or of a given prompt's request,
    apart from case, spacing and punctuation. Questions on `own` pictures are kept: their words don't identify them.
    """
    asked = set(map(_words, {text for prompt in given for text in (prompt.text, prompt.request)}))
    repeated = {
        prompt.request
        for prompt in own
        if prompt.modality != "own" and not asked.isdisjoint((_words(prompt.text), _words(prompt.request)))
    }
    return [prompt for prompt in own if prompt.request not in repeated]


def _words(text: str) -> str:
    """The words of a text, in lower case; the text itself where it has none."""
    return " ".join(re.findall(r"[^\W_]+", text.casefold())) or text


def _squeezed(kind: str) -> str:
    return re.sub(r"[-_ ]", "", kind.lower())
