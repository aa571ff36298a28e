"""The prompts that the specimen is measured and fitted on."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from PIL.Image import Image

from vlsurgery.probes.prompts import Modality, Prompt, PromptSet, Split
from vlsurgery.probes.specimens.miniature import pictures, splits
from vlsurgery.probes.specimens.miniature.language import FORMS, REPORT_WRAPPERS, WRAPPERS, RequestPair
from vlsurgery.probes.specimens.miniature.pictures import QUESTIONS, READABLE, Content

# Harmful requests of a split that also come jailbroken, and those that also come with a blank and a noise picture.
# Blank and noise pictures are controls: nothing is fitted on them.
JAILBROKEN: dict[Split, int] = {"fit": 40, "select": 56, "report": 112}
CONTROLS: dict[Split, int] = {"fit": 0, "select": 20, "report": 60}


def prompts(seed: int) -> list[Prompt]:
    """All prompts for one seed's specimen, about pairs and picture contents that are in none of its training data.

    The same seed gives the same list and pictures. Harmful, harmless and jailbroken prompts about one pair share
    their `request`, and so do a question about a picture and the same question about its content in words. Every
    other jailbroken request of `report` has a wrapper that no other split and no training stage uses.
    """
    drawn = splits.draw(seed)
    return [prompt for split in splits.SIZES for prompt in _SplitPrompts(seed, split, drawn).all()]


@dataclass(frozen=True)
class _SplitPrompts:
    """The prompts of one split; random choices are seeded by the seed and the prompt's id."""

    seed: int
    split: Split
    drawn: splits.Splits

    def all(self) -> Iterator[Prompt]:
        for number, pair in enumerate(self.drawn.harmful[self.split]):
            yield from self._harmful(pair, number)
            yield from self._answered("harmless", pair)
        for pair in self.drawn.borderline[self.split]:
            yield from self._answered("borderline", pair)
        for content in self.drawn.contents[self.split]:
            for question in QUESTIONS:
                yield from self._capability(content, question)

    def _harmful(self, pair: RequestPair, number: int) -> Iterator[Prompt]:
        text = pair.request(harmful=True, form=self._form(pair))
        modalities: tuple[Modality, ...] = ("text", "benign")
        if number < CONTROLS[self.split]:
            modalities += ("blank", "noise")
        for modality in modalities:
            yield self._about(pair, "harmful", text, modality)
        if number < JAILBROKEN[self.split]:
            wrapped = self._wrapper(number).format(request=text)
            for modality in modalities[:2]:
                yield self._about(pair, "jailbroken", wrapped, modality)

    def _answered(self, kind: PromptSet, pair: RequestPair) -> Iterator[Prompt]:
        text = pair.request(harmful=kind == "borderline", form=self._form(pair))
        yield self._about(pair, kind, text, "text")
        yield self._about(pair, kind, text, "benign")

    def _about(self, pair: RequestPair, kind: PromptSet, text: str, modality: Modality) -> Prompt:
        name = f"{kind}/{modality}/{pair.key}"
        harmful = kind != "harmless"
        return Prompt(
            id=name,
            request=pair.key,
            set=kind,
            text=text,
            split=self.split,
            modality=modality,
            image=self._image(modality, name),
            answer=pair.answer(harmful) if kind in ("harmless", "borderline") else None,
            topic=pair.topic(harmful),
        )

    def _capability(self, content: Content, question: str) -> Iterator[Prompt]:
        request = "-".join((question, *content.words))
        asked, answer = QUESTIONS[question], content.answer(question)
        name = f"capability/own/{request}"
        image = pictures.render(content, self._rng(name))
        yield Prompt(name, request, "capability", asked, self.split, "own", image, answer, (answer,))
        if question in READABLE:
            name = f"capability/text/{request}"
            read = pictures.in_words(content, self._rng(name)) + " " + asked
            yield Prompt(name, request, "capability", read, self.split, "text", None, answer, (answer,))

    def _image(self, modality: Modality, name: str) -> Image | None:
        rng = self._rng(name)
        if modality == "benign":
            return pictures.render(rng.choice(self.drawn.contents[self.split]), rng)
        if modality == "noise":
            return pictures.noise(rng)
        return pictures.blank() if modality == "blank" else None

    def _wrapper(self, number: int) -> str:
        half, odd = divmod(number, 2)
        if self.split == "report" and not odd:
            return REPORT_WRAPPERS[half % len(REPORT_WRAPPERS)]
        return WRAPPERS[number % len(WRAPPERS)]

    def _form(self, pair: RequestPair) -> int:
        return self._rng(pair.key).randrange(len(FORMS))

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self.seed} {name}")
