"""The prompts that a real trio is measured and fitted on: a sample of the package's own, and questions on its pictures.

The same for every seed, so that seeds are compared on the same requests. None of them was trained on.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Final

from vlsurgery.probes.prompts import Prompt, PromptSet, Split, english_prompts
from vlsurgery.probes.prompts.pictures import blank
from vlsurgery.probes.specimens.smollm2 import pictures
from vlsurgery.probes.specimens.smollm2.config import TrioConfig

SCANS: Final = 1797  # of digits, in scikit-learn


@dataclass(frozen=True)
class SampleSizes:
    """How many requests of each set one split has.

    jailbroken and harmless ones are those of the first harmful requests. words: questions in words. pictured: questions
    on pictures, half on scanned digits and half on drawn figures. controls: harmful requests that come with a blank and
    a noise picture too. blank: questions on pictures that are asked of a blank one too, where chance is seen.
    """

    harmful: int
    jailbroken: int
    harmless: int
    borderline: int
    words: int
    pictured: int
    controls: int = 0
    blank: int = 0


SIZES: Final[dict[Split, SampleSizes]] = {
    "fit": SampleSizes(harmful=40, jailbroken=16, harmless=28, borderline=24, words=16, pictured=16),
    "select": SampleSizes(harmful=28, jailbroken=14, harmless=24, borderline=24, words=12, pictured=16),
    "report": SampleSizes(
        harmful=60, jailbroken=32, harmless=36, borderline=36, words=30, pictured=48, controls=30, blank=30
    ),
}


def prompts() -> list[Prompt]:
    """The sample of every split. Requests are drawn from the package's own, which are split already."""
    package = english_prompts()
    scans = random.Random("scans").sample(range(TrioConfig().digits, SCANS), SCANS - TrioConfig().digits)
    rest = iter(scans)
    return [
        prompt
        for split, sizes in SIZES.items()
        for prompt in (*_sampled(package, split, sizes), *_pictured(split, sizes, rest))
    ]


def _sampled(package: Sequence[Prompt], split: Split, sizes: SampleSizes) -> Iterator[Prompt]:
    harmful = _drawn(package, split, "harmful", sizes.harmful)
    controlled = [r for r in harmful if any(p.request == r and p.modality == "blank" for p in package)]
    controlled = controlled[: sizes.controls]
    taken: dict[PromptSet, Sequence[str]] = {
        "harmful": harmful,
        "jailbroken": harmful[: sizes.jailbroken],
        "harmless": harmful[: sizes.harmless],
        "borderline": _drawn(package, split, "borderline", sizes.borderline),
        "capability": _drawn(package, split, "capability", sizes.words),
    }
    chosen = {(name, request) for name, requests in taken.items() for request in requests}
    for prompt in package:
        if (prompt.set, prompt.request) not in chosen or prompt.modality == "own":
            continue
        if prompt.modality not in ("blank", "noise") or prompt.request in controlled:
            yield prompt


def _drawn(package: Sequence[Prompt], split: Split, name: PromptSet, count: int) -> list[str]:
    """Requests of one set and split in seeded order; those in words alone where it has questions on pictures."""
    found = {p.request for p in package if (p.set, p.split) == (name, split) and p.modality == "text"}
    return random.Random(f"{split} {name}").sample(sorted(found), min(count, len(found)))


def _pictured(split: Split, sizes: SampleSizes, scans: Iterator[int]) -> Iterator[Prompt]:
    """Questions on scans that were never trained on and on newly drawn figures, and some of them on a blank picture."""
    made = []
    for number, kind in enumerate(islice(cycle(("digit", "figure")), sizes.pictured)):
        key = f"{kind}-{next(scans)}" if kind == "digit" else f"{kind}-{split}-{number}"
        rng = random.Random(f"question {key}")
        sight, image = pictures.digit(int(key.partition("-")[2]), rng) if kind == "digit" else pictures.figure(rng)
        questions = sorted(sight.questions().items())
        question, answer = questions[number // 2 % len(questions)]
        made.append(Prompt(f"capability/own/{key}", key, "capability", question, split, "own", image, answer))
    yield from made
    for prompt in made[: sizes.blank]:
        yield replace(prompt, id=f"capability/blank/{prompt.request}", modality="blank", image=blank())
