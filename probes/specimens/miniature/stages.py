"""The stages of a trio's training: base, tower, projector, adaptation, safety tuning."""

import copy
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, LlavaForConditionalGeneration

from vlsurgery.probes.specimens.miniature import chat, networks, pictures
from vlsurgery.probes.specimens.miniature.config import SpecimenConfig, TrainingStage
from vlsurgery.probes.specimens.miniature.corpus import Corpus, TrainingBatch, encode
from vlsurgery.probes.specimens.miniature.networks import ChatLM, answer_loss, tower_states
from vlsurgery.probes.specimens.miniature.pictures import ATTRIBUTES, Content
from vlsurgery.probes.specimens.miniature.splits import Splits
from vlsurgery.probes.specimens.miniature.training import train
from vlsurgery.surgery.runtime.progress import Progress

CHECK_EVERY = 10
"""Steps of adaptation between two measurements of refusal on the stopping prompts."""

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
    numbers = [[words.index(word) for words, word in zip(ATTRIBUTES, c.words, strict=True)] for c in setup.album]
    labels = torch.tensor(numbers)

    def loss() -> Tensor:
        rows = torch.randint(len(labels), (config.tower_batch,))
        states = tower_states(model, setup.pixels[rows]).unbind(1)
        named = [head(state) for head, state in zip(naming, states, strict=True)]
        return torch.stack([cross_entropy(named[i], labels[rows, i]) for i in range(len(named))]).sum()

    losses = setup.progress([loss] * config.tower.steps, "vision tower")
    return _timed(lambda: train([([*tower.parameters(), *naming.parameters()], 1.0)], losses, config.tower))


def train_projector(setup: TrainingSetup, model: LlavaForConditionalGeneration, seen: Tensor) -> Report:
    """Train the projector on captions, with all else frozen."""
    model.requires_grad_(False)
    projector = model.model.multi_modal_projector.requires_grad_(True)
    losses = _losses(setup, model, seen, "projector", setup.config.projector)
    return _timed(lambda: train([(list(projector.parameters()), 1.0)], losses, setup.config.projector))


def adapt(setup: TrainingSetup, model: LlavaForConditionalGeneration, seen: Tensor) -> Report:
    """Train the language model to answer about pictures, on safe data only, until refusals have fallen.

    It stops when the refusal rate on the stopping prompts, which are in no training data and in no split, is at or
    below the config's `stop_at`; then the learning rate falls to 0. That refusals fall is an effect of the data; how
    far is by construction. The report has the refusal rate at each measurement, whether adaptation was `stopped` or
    ran out of steps, and the refusal rate at the end.
    """
    config = setup.config
    model.requires_grad_(True)
    model.model.vision_tower.requires_grad_(False)
    watched = _stopping_batch(setup)
    refusals: dict[str, float] = {}

    def fallen(step: int) -> bool:
        if step % CHECK_EVERY:
            return False
        refused = refusals[str(step)] = _refusal(model, watched, seen)
        return step >= config.stop_not_before and refused <= config.stop_at

    groups = [
        (networks.language_parameters(model), 1.0),
        (list(model.model.multi_modal_projector.parameters()), config.projector_share),
    ]
    settling = replace(config.adaptation, steps=config.settling, warmup=0.0, decays=True)

    def descend() -> int:
        steps = train(groups, _losses(setup, model, seen, "adaptation", config.adaptation), config.adaptation, fallen)
        train(groups, _losses(setup, model, seen, "settling", settling), settling)
        return steps

    report = _timed(descend)
    return {
        **report,
        "stopped": report["steps"] < config.adaptation.steps,
        "stop_at": config.stop_at,
        "refusals": refusals,
        "refusal": _refusal(model, watched, seen),
    }


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


def _stopping_batch(setup: TrainingSetup) -> TrainingBatch:
    """The stopping prompts, each with a random picture."""
    corpus = setup.corpus("stopping")
    examples = [corpus.pictured(corpus.refused(pair)) for pair in setup.splits.stopping]
    return encode(examples, chat.tokenizer(sees=True))


def _refusal(model: LlavaForConditionalGeneration, watched: TrainingBatch, seen: Tensor) -> float:
    """The share of answers whose first word is that of a refusal."""
    words = chat.tokenizer(sees=True)
    openings = torch.tensor(words.convert_tokens_to_ids(sorted(chat.REFUSAL_OPENINGS)))
    return torch.isin(networks.first_words(model, watched, seen), openings).float().mean().item()


def _timed(run: Callable[[], int]) -> Report:
    started = time.perf_counter()
    steps = run()
    return {"steps": steps, "seconds": round(time.perf_counter() - started, 1)}
