"""The stages of a real trio. Each reads what earlier ones wrote and writes a directory of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from vlsurgery.probes.specimens.smollm2 import networks, own_answers, pictures, texts
from vlsurgery.probes.specimens.smollm2.config import Lesson
from vlsurgery.probes.specimens.smollm2.networks import tower_states
from vlsurgery.probes.specimens.smollm2.pictures import WORDS, Sight
from vlsurgery.probes.specimens.smollm2.training import train
from vlsurgery.probes.specimens.smollm2.workshop import Workshop

UNSAID = -100  # number of a word that a picture does not have

Report = dict[str, Any]
Stage: TypeAlias = Callable[[Workshop, Path], Report]


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
    return {"refusing": ends(first), "telling apart": ends(second)}


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
    return {"tower": ends(named), "naming": ends(spoken)}


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
    return ends(found)


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

    return ends(train(weights, work.losses(model, name, lesson, work.seen(model)), lesson, keep))


def ends(losses: list[float]) -> Report:
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
