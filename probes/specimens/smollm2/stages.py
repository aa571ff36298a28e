"""The stages of a real trio. Each reads what earlier ones wrote and writes a directory of its own."""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from vlsurgery.probes.specimens.smollm2 import chat, networks, own_answers, pictures, texts
from vlsurgery.probes.specimens.smollm2.config import Lesson, TrioConfig
from vlsurgery.probes.specimens.smollm2.corpus import Examples, OwnAnswer, TurnBatch
from vlsurgery.probes.specimens.smollm2.networks import RealLM, answer_loss, tower_states
from vlsurgery.probes.specimens.smollm2.pictures import WORDS, Sight
from vlsurgery.probes.specimens.smollm2.training import train
from vlsurgery.surgery.runtime.progress import Progress

UNSAID = -100  # number of a word that a picture does not have

Report = dict[str, Any]
Stage: TypeAlias = Callable[["Workshop", Path], Report]


@dataclass(frozen=True)
class Workshop:
    """What all stages of one trio share.

    root: the trio's directory. source: that of the raw model. dtype: of running weights; all are saved in bfloat16.
    """

    config: TrioConfig
    seed: int
    root: Path
    source: Path
    device: str
    dtype: torch.dtype
    progress: Progress

    @cached_property
    def own(self) -> dict[str, OwnAnswer]:
        return own_answers.read(self.root / "answers" / "answers.json")

    @cached_property
    def blind_words(self) -> Any:
        return chat.tokenizer(self.source)

    @cached_property
    def seeing_words(self) -> Any:
        return chat.tokenizer(self.source, sees=True)

    @cached_property
    def album(self) -> tuple[list[Sight], Tensor]:
        """The training pictures: what each shows, and their pixels [pictures, 3, side, side]."""
        config = self.config
        drawn = pictures.album(config.digits, config.figures, config.scenes, random.Random(f"album {self.seed}"))
        reader = chat.processor(self.seeing_words).image_processor
        pixels = reader([image for _, image in drawn], return_tensors="pt")["pixel_values"]
        return [sight for sight, _ in drawn], pixels

    def losses(
        self, model: RealLM, name: str, lesson: Lesson, seen: Tensor | None = None
    ) -> Iterator[list[Callable[[], Tensor]]]:
        """Of each batch of a lesson the parts of its mean loss of a token, under a progress bar of that name."""
        sights = [] if seen is None else self.album[0]
        words = self.blind_words if seen is None else self.seeing_words
        batches = Examples(self.own, sights, self.seed, name).batches(lesson, words)
        for parts in self.progress(batches, name, lesson.steps):
            count = sum(part.learnt for part in parts)
            yield [partial(_share, model, part.to(self.device), seen, count) for part in parts]

    def seen(self, model: Any) -> Tensor:
        """The tower's states of the whole album, as the frozen tower of a running model gives them."""
        pixels = self.album[1]
        with torch.no_grad():
            parts = [tower_states(model, part.to(self.device, self.dtype)) for part in pixels.split(64)]
        return torch.cat(parts)

    def open_seeing(self, directory: Path) -> Any:
        """A vision-language model, nothing of it in training."""
        return networks.seeing(directory, self.dtype).to(self.device).requires_grad_(False)

    def save(self, model: RealLM, words: Any, directory: Path) -> None:
        """Write a checkpoint in bfloat16, with its tokenizer or processor."""
        whole = copy.deepcopy(model).to(torch.bfloat16)
        whole.config.dtype = torch.bfloat16
        whole.save_pretrained(directory)
        sees = words is self.seeing_words
        (chat.processor(words) if sees else words).save_pretrained(directory)


def _share(model: RealLM, part: TurnBatch, seen: Tensor | None, count: int) -> Tensor:
    """What a part adds to the mean over so many tokens."""
    return answer_loss(model, part, seen) / count


def answer_for_itself(work: Workshop, out: Path) -> Report:
    """The source's own answers: to requests all that are no refusals, to questions those that are right."""
    model = networks.llama(work.source, work.dtype).to(work.device).eval()
    requests, questions = texts.answerable(), texts.questions()
    asked = [*requests, *(question for question, _ in questions)]
    said = own_answers.own_answers(model, work.blind_words, asked, work.config.own_tokens, work.progress)
    kept = own_answers.helpful({text: said[text] for text in requests})
    known = own_answers.right(said, questions)
    own_answers.write(out / "answers.json", {**kept, **known})
    return {"answers": len(kept), "refused": len(requests) - len(kept), "right": len(known)}


def teach_refusing(work: Workshop, out: Path) -> Report:
    """The base: the source, taught to refuse harmful requests and then to tell them from their twins."""
    model = networks.llama(work.source, work.dtype).to(work.device).requires_grad_(False)
    model.generation_config.eos_token_id = work.blind_words.eos_token_id
    weights, config = networks.moved_parameters(model), work.config
    first = train(weights, work.losses(model, "refusing", config.refusing), config.refusing)
    second = train(weights, work.losses(model, "telling apart", config.telling_apart), config.telling_apart)
    work.save(model, work.blind_words, out)
    return {"refusing": _ends(first), "telling apart": _ends(second)}


def train_tower(work: Workshop, out: Path) -> Report:
    """A tower and a projector around the base, without its language model: each image token learns one word.

    Image tokens name color, thing and detail in turn; the projector then maps each to the mean embedding of its word.
    """
    base = networks.llama(work.root / "base", torch.float32)
    model = networks.llava(base, work.seeing_words, work.config).to(work.device)
    model.requires_grad_(False)
    named = _tower(work, model)
    seen = replace(work, dtype=torch.float32).seen(model)
    spoken = _naming(work, model, seen)
    work.save(model, work.seeing_words, out)
    return {"tower": _ends(named), "naming": _ends(spoken)}


def _tower(work: Workshop, model: Any) -> list[float]:
    sights, pixels = work.album
    labels, lesson = _numbers(sights).to(work.device), work.config.tower
    heads = nn.ModuleList(nn.Linear(work.config.tower_width, len(words)) for words in WORDS).to(work.device)

    def loss() -> Tensor:
        rows = torch.randint(len(labels), (work.config.picture_batch,))
        states = tower_states(model, pixels[rows].to(work.device)).unflatten(1, (-1, len(WORDS)))
        known = labels[rows.to(work.device)]
        parts = []
        for at, head in enumerate(heads):
            said = head(states[:, :, at])  # [pictures, tokens, words]
            wanted = known[:, at, None].expand(-1, said.shape[1])
            parts.append(cross_entropy(said.flatten(0, 1), wanted.flatten(), ignore_index=UNSAID))
        return torch.stack(parts).sum()

    weights = [*model.model.vision_tower.parameters(), *heads.parameters()]
    return train(weights, work.progress([[loss]] * lesson.steps, "vision tower"), lesson)


def _naming(work: Workshop, model: Any, seen: Tensor) -> list[float]:
    """Teach the projector the words' embeddings; where a picture has no such word, that of its thing."""
    labels, lesson = _numbers(work.album[0]).to(work.device), work.config.naming
    tables = [torch.stack([_embedding(work, model, word) for word in words]) for words in WORDS]
    things = tables[1][labels[:, 1]]
    targets = torch.stack(
        [
            torch.where((labels[:, at] == UNSAID)[:, None], things, table[labels[:, at].clamp(min=0)])
            for at, table in enumerate(tables)
        ],
        1,
    ).repeat(1, pictures.IMAGE_TOKENS // len(WORDS), 1)

    def loss() -> Tensor:
        rows = torch.randint(len(labels), (work.config.picture_batch,), device=work.device)
        said = model.model.multi_modal_projector(seen[rows])
        return mse_loss(said, targets[rows]) / targets.var()

    weights = list(model.model.multi_modal_projector.parameters())
    return train(weights, work.progress([[loss]] * lesson.steps, "naming"), lesson)


def _numbers(sights: list[Sight]) -> Tensor:
    """The numbers of each picture's words among WORDS: [pictures, 3]; UNSAID where it has none."""
    rows = [
        [UNSAID if word is None else words.index(word) for word, words in zip(sight.words, WORDS, strict=True)]
        for sight in sights
    ]
    return torch.tensor(rows)


def _embedding(work: Workshop, model: Any, word: str) -> Tensor:
    """The mean embedding of a word's tokens, as it stands inside a sentence."""
    ids = torch.tensor(work.blind_words(f" {word}")["input_ids"], device=work.device)
    rows: Tensor = model.model.language_model.embed_tokens(ids).detach()
    return rows.mean(0)


def train_projector(work: Workshop, out: Path) -> Report:
    """The projector alone, on captions and questions, the language model frozen."""
    model = work.open_seeing(work.root / "tower")
    weights, lesson = list(model.model.multi_modal_projector.parameters()), work.config.projector
    found = train(weights, work.losses(model, "projector", lesson, work.seen(model)), lesson)
    work.save(model, work.seeing_words, out)
    return _ends(found)


def adapt(work: Workshop, out: Path) -> Report:
    """The adapted model: language model and projector trained on safe data only, with its checkpoints on the way."""
    model = work.open_seeing(work.root / "projector")
    weights = [*networks.moved_parameters(model), *model.model.multi_modal_projector.parameters()]
    return _kept(work, model, weights, "adaptation", work.config.adaptation, out)


def tune_safety(work: Workshop, out: Path) -> Report:
    """Safety-tuned models: the adapted one, taught to refuse with a picture; a mild and a strong dose."""
    model = work.open_seeing(work.root / "adaptation" / f"step-{work.config.adaptation.kept[-1]}")
    return _kept(work, model, networks.moved_parameters(model), "safety", work.config.safety, out)


def _kept(work: Workshop, model: Any, weights: list[nn.Parameter], name: str, lesson: Lesson, out: Path) -> Report:
    """A lesson whose model is saved after the steps that it names."""

    def keep(taken: int) -> None:
        if taken in lesson.kept:
            work.save(model, work.seeing_words, out / f"step-{taken}")

    return _ends(train(weights, work.losses(model, name, lesson, work.seen(model)), lesson, keep))


def _ends(losses: list[float]) -> Report:
    """Steps, and the mean loss over the first and the last tenth of them."""
    tenth = max(1, len(losses) // 10)
    first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
    return {"steps": len(losses), "first": round(first, 4), "last": round(last, 4)}


STAGES: tuple[tuple[str, Stage], ...] = (
    ("answers", answer_for_itself),
    ("base", teach_refusing),
    ("tower", train_tower),
    ("projector", train_projector),
    ("adaptation", adapt),
    ("safety", tune_safety),
)
