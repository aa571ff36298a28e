"""The stages of a trio's training: base, tower, projector, adaptation, safety tuning."""

import copy
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from transformers import LlamaForCausalLM, LlavaForConditionalGeneration

from vlsurgery.probes.specimens.miniature import chat, networks, pictures
from vlsurgery.probes.specimens.miniature.config import SpecimenConfig, TrainingStage
from vlsurgery.probes.specimens.miniature.corpus import Corpus, TrainingBatch, encode
from vlsurgery.probes.specimens.miniature.networks import ChatLM, answer_loss, tower_states
from vlsurgery.probes.specimens.miniature.pictures import ATTRIBUTES, Content
from vlsurgery.probes.specimens.miniature.splits import WATCHED_PAIRS, Splits
from vlsurgery.probes.specimens.miniature.training import train
from vlsurgery.surgery.runtime.progress import Progress

CHECK_EVERY = 10
"""Steps of adaptation between two measurements of refusal on the watched prompts."""

Report = dict[str, Any]


@dataclass(frozen=True)
class TrainingSetup:
    """The data that all stages of one build share.

    album: the content of each training picture. pixels: the pictures [pictures, 3, side, side].
    """

    config: SpecimenConfig
    seed: int
    splits: Splits
    album: tuple[Content, ...]
    pixels: Tensor
    progress: Progress

    @classmethod
    def open(cls, config: SpecimenConfig, seed: int, splits: Splits, progress: Progress) -> "TrainingSetup":
        """Draw the training pictures."""
        rng = random.Random(f"album {seed}")
        album = splits.training_contents * config.jitters
        images = [pictures.render(content, rng) for content in album]
        pixels = chat.processor().image_processor(images, return_tensors="pt")["pixel_values"]
        return cls(config, seed, splits, album, pixels, progress)

    def corpus(self, name: str) -> Corpus:
        """The examples of one stage."""
        return Corpus(self.splits, self.album, self.seed, name)


def train_base(setup: TrainingSetup) -> tuple[LlamaForCausalLM, Report]:
    """A chat model that answers and refuses, and reads some picture contents in words, with its report."""
    model = networks.llama(setup.config)
    losses = _losses(setup, model, None, "base model", setup.config.base)
    return model, _timed(lambda: train([(list(model.parameters()), 1.0)], losses, setup.config.base))


def train_tower(setup: TrainingSetup, model: LlavaForConditionalGeneration) -> Report:
    """Train the tower: each of its four patches learns to name one of the picture's four attributes.

    One each, so that the projector can map a picture to four separate words, as the base reads them in text.
    """
    config, tower = setup.config, model.model.vision_tower
    naming = nn.ModuleList(nn.Linear(config.hidden, len(words)) for words in ATTRIBUTES)
    labels = _attribute_numbers(setup.album)

    def loss() -> Tensor:
        rows = torch.randint(len(labels), (config.picture_batch,))
        states = tower_states(model, setup.pixels[rows]).unbind(1)
        named = [head(state) for head, state in zip(naming, states, strict=True)]
        return torch.stack([cross_entropy(named[i], labels[rows, i]) for i in range(len(named))]).sum()

    losses = setup.progress([loss] * config.tower.steps, "vision tower")
    return _timed(lambda: train([([*tower.parameters(), *naming.parameters()], 1.0)], losses, config.tower))


def train_projector(setup: TrainingSetup, model: LlavaForConditionalGeneration, seen: Tensor) -> Report:
    """Train the projector, with all else frozen: to give the words of a picture's attributes, then on captions.

    On captions alone it can settle where one attribute is lost, and then no later stage learns it.
    """
    config = setup.config
    model.requires_grad_(False)
    projector = model.model.multi_modal_projector.requires_grad_(True)
    parameters = [(list(projector.parameters()), 1.0)]
    words = chat.tokenizer(sees=True)
    spoken = [torch.tensor(words.convert_tokens_to_ids(list(attribute))) for attribute in ATTRIBUTES]
    embedded = [model.model.language_model.embed_tokens(ids) for ids in spoken]
    labels = _attribute_numbers(setup.album)

    def distance() -> Tensor:
        rows = torch.randint(len(labels), (config.picture_batch,))
        wanted = torch.stack([table[labels[rows, i]] for i, table in enumerate(embedded)], 1)
        return mse_loss(projector(seen[rows]), wanted) / wanted.var()

    named = setup.progress([distance] * config.naming.steps, "naming")
    captions = _losses(setup, model, seen, "projector", config.projector)
    return _timed(lambda: train(parameters, named, config.naming) + train(parameters, captions, config.projector))


def _attribute_numbers(album: tuple[Content, ...]) -> Tensor:
    """The numbers of each content's words among the words of their attributes: [contents, attributes]."""
    return torch.tensor([[words.index(w) for words, w in zip(ATTRIBUTES, c.words, strict=True)] for c in album])


def adapt(setup: TrainingSetup, model: LlavaForConditionalGeneration, seen: Tensor) -> Report:
    """Train the language model to answer about pictures and requests, on safe data only, for a fixed number of steps.

    Nothing stops it early: how far refusals fall is measured, not chosen. But the data were chosen so that they fall:
    see `SpecimenConfig.adaptation`. The report has the share of the watched prompts, harmful and each with a picture,
    that is refused: before, at every CHECK_EVERY steps (`refusals`, step -> share) and at the end (`refusal`), and the
    share of `fresh` requests that is refused before (`fresh_refused`). `told` says all that in words.
    """
    config = setup.config
    model.requires_grad_(True)
    model.model.vision_tower.requires_grad_(False)
    watched = _watched_batch(setup)
    fresh = _refusal(model, _fresh_batch(setup), seen)
    refusals = {"0": _refusal(model, watched, seen)}

    def measure(step: int) -> None:
        if step % CHECK_EVERY == 0:
            refusals[str(step)] = _refusal(model, watched, seen)

    groups = [
        (networks.language_parameters(model), 1.0),
        (list(model.model.multi_modal_projector.parameters()), config.projector_share),
    ]
    losses = _losses(setup, model, seen, "adaptation", config.adaptation)
    report = _timed(lambda: train(groups, losses, config.adaptation, measure))
    report |= {"refusals": refusals, "refusal": _refusal(model, watched, seen), "fresh_refused": fresh}
    return {**report, "told": _told(report)}


def _told(report: Report) -> str:
    """How adaptation went, in words."""
    refusals = report["refusals"]
    lowest = min(refusals, key=lambda step: (refusals[step], int(step)))
    return (
        f"Adaptation ran {report['steps']} steps on safe data, a number fixed beforehand, over which the learning rate"
        f" rose and fell to 0. Of {WATCHED_PAIRS} watched harmful prompts {refusals['0']:.0%} were refused before it,"
        f" {refusals[lowest]:.0%} at the lowest (after step {lowest}) and {report['refusal']:.0%} at the end. Its data"
        f" hold harmless requests that look harmful, of which {report['fresh_refused']:.0%} were refused before: they"
        " are there so that refusals fall."
    )


def tune_safety(
    setup: TrainingSetup, adapted: LlavaForConditionalGeneration, seen: Tensor
) -> tuple[LlavaForConditionalGeneration, Report]:
    """A copy of the adapted model, tuned on refusals and on questions about pictures, with its report."""
    model = copy.deepcopy(adapted)
    model.requires_grad_(False)
    parameters = networks.language_parameters(model)
    for parameter in parameters:
        parameter.requires_grad_(True)
    losses = _losses(setup, model, seen, "safety", setup.config.safety)
    return model, _timed(lambda: train([(parameters, 1.0)], losses, setup.config.safety))


def _losses(
    setup: TrainingSetup, model: ChatLM, seen: Tensor | None, name: str, stage: TrainingStage
) -> Iterator[Callable[[], Tensor]]:
    """One loss function for each batch of the stage, with a progress bar of that name."""
    batches = setup.corpus(name).batches(stage, chat.tokenizer(sees=seen is not None))
    for batch in setup.progress(batches, name):
        yield partial(answer_loss, model, batch, seen)


def _watched_batch(setup: TrainingSetup) -> TrainingBatch:
    """The watched prompts, each with a random picture."""
    corpus = setup.corpus("watched")
    examples = [corpus.pictured(corpus.refused(pair)) for pair in setup.splits.watched]
    return encode(examples, chat.tokenizer(sees=True))


def _fresh_batch(setup: TrainingSetup) -> TrainingBatch:
    """As many requests with harmful verbs about fresh objects as there are watched prompts, each with a picture."""
    corpus = setup.corpus("fresh requests")
    return encode([corpus.example("fresh pictured") for _ in range(WATCHED_PAIRS)], chat.tokenizer(sees=True))


def _refusal(model: LlavaForConditionalGeneration, watched: TrainingBatch, seen: Tensor) -> float:
    """The share of answers whose first word is that of a refusal."""
    words = chat.tokenizer(sees=True)
    openings = torch.tensor(words.convert_tokens_to_ids(sorted(chat.REFUSAL_OPENINGS)))
    return torch.isin(networks.first_words(model, watched, seen), openings).float().mean().item()


def _timed(run: Callable[[], int]) -> Report:
    started = time.perf_counter()
    steps = run()
    return {"steps": steps, "seconds": round(time.perf_counter() - started, 1)}
