"""A callback of transformers' Trainer that logs refusals and moved blocks while a model trains."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import transformers
from torch import nn

from vlsurgery.probes.evaluation.generate import DEFAULT_TOKENS
from vlsurgery.probes.evaluation.judges import STANDARD, Judge
from vlsurgery.probes.evaluation.mean_intervals import mean_estimate
from vlsurgery.probes.models import ChatModel, Loader, decoder_blocks
from vlsurgery.probes.prompts import HARMFUL_SETS, Prompt, english_prompts, load_prompt_files
from vlsurgery.probes.targets import without_picture
from vlsurgery.probes.trajectory.base_completions import Answering, base_completions
from vlsurgery.probes.trajectory.live_change import CheckpointWeights, LiveChange, StartWeights
from vlsurgery.probes.trajectory.live_weights import live_weights, model_inside
from vlsurgery.probes.trajectory.openings import RefusalOpenings, opening_log_odds
from vlsurgery.probes.trajectory.run import asked_prompts
from vlsurgery.probes.trajectory.undisturbed import undisturbed
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.urls import refuse_urls

PREFIX: Final = "vlsurgery/"
REQUESTS: Final = 16  # of a set: enough for a mean to follow, few enough for a training run


class TrainerCallback(transformers.TrainerCallback):
    """Logs refusal log-odds by prompt set, their drop, and the blocks that moved most, through the Trainer's own `log`.

        trainer = Trainer(..., callbacks=[vlsurgery.TrainerCallback(every=50)], processing_class=tokenizer)

    Keys: `vlsurgery/refusal_log_odds/harmful` (nats; `harmful.benign` with an ordinary picture),
    `vlsurgery/refusal_drop/harmful` (how far below the base's on the same prompts) and
    `vlsurgery/relative_change/5.mlp` (norm of the block's change over the norm it started with). They are logged as
    training begins, every `every` steps, and at the last step.

    every: optimizer steps between looks. prompts: `Prompt`s, or "FILE:KIND" as for `--prompts`; None takes the
        package's own English ones of the `select` split, so that `report` stays unseen. requests: of a set, at most.
    base: the checkpoint whose refusals count and from which change is measured; it is loaded once, as training begins.
        None is the model as training begins, whose trained weights are then kept in temporary files (TMPDIR).
    blocks: how many of the blocks that moved most are logged; 0 measures none. judge: tells refusals from answers.
    tokens: of a completion of the base's, at most.

    Training is not changed: modes, gradients and random numbers are restored. Takes gradient accumulation, mixed
    precision, LoRA adapters and data parallel training, where the first process looks; refuses in one line sharded
    parameters (ZeRO-3, FSDP), other adapters, a Trainer without `processing_class`, and, without `base`, training that
    was resumed, as its start is not the base.
    """

    def __init__(
        self,
        every: int = 50,
        prompts: Sequence[Prompt | str] | None = None,
        base: str | Path | Checkpoint | None = None,
        *,
        requests: int = REQUESTS,
        blocks: int = 3,
        judge: Judge = STANDARD,
        tokens: int = DEFAULT_TOKENS,
    ) -> None:
        for name, value, least in (("every", every, 1), ("requests", requests, 2), ("blocks", blocks, 0)):
            if value < least:
                raise SurgeryError(f"TrainerCallback({name}={value}): expected at least {least}.")
        self.every, self.requests, self.blocks = every, requests, blocks
        self._answering = Answering(judge, tokens)
        if base is not None:
            refuse_urls([base.location if isinstance(base, Checkpoint) else str(base)], "TrainerCallback")
        self._base = base if base is None or isinstance(base, Checkpoint) else Checkpoint.open(base)
        self._prompts = _chosen(prompts, requests)
        self._watch: _Watch | None = None
        self._last = -1

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Find how the base refuses, keep the start weights, and log where training begins."""
        if not state.is_world_process_zero:
            return
        if state.global_step and self._base is None:
            raise SurgeryError(
                f"TrainerCallback: training goes on from step {state.global_step}, whose refusals are not the base's. "
                "Give the checkpoint that it began from: base=PATH."
            )
        model = model_inside(kwargs["model"])
        chat = _chat(model, kwargs.get("processing_class"))
        with undisturbed(kwargs["model"]):
            self._watch = self._started(chat)
        self._last = -1
        self._log(kwargs["model"], state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Log where `every` steps have gone by, and at the last step."""
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            self._log(kwargs["model"], state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Delete the start weights."""
        if self._watch is not None:
            self._watch.close()
        self._watch = None

    def _started(self, chat: ChatModel) -> "_Watch":
        """What is measured from now on, with what the base gives."""
        asked = chat.answerable(self._prompts)
        change = None
        if self.blocks:
            weights = live_weights(chat.model)
            reference = StartWeights(weights) if self._base is None else CheckpointWeights(weights, self._base)
            change = LiveChange(weights, reference)
        if self._base is None:
            openings = base_completions(chat, self._prompts, self._answering).openings(chat)
            return _Watch(chat, asked, openings, opening_log_odds(chat, asked, openings).tolist(), change)
        source = Loader(device=str(chat.device)).load(self._base)
        said = base_completions(source, self._prompts, self._answering)
        seen = asked if source.sees else [without_picture(prompt) for prompt in asked]
        before = opening_log_odds(source, seen, said.openings(source)).tolist()
        return _Watch(chat, asked, said.openings(chat), before, change)

    def _log(self, model: nn.Module, state: Any, control: Any) -> None:
        """Measure and log, once a step; what the Trainer was going to log stays to be logged."""
        if self._watch is None or state.global_step == self._last:
            return
        self._last = state.global_step
        with undisturbed(model):
            found = self._watch.look(self.blocks)
        should_log = control.should_log  # which every log turns off
        _running_trainer().log(found)
        control.should_log = should_log


@dataclass(frozen=True)
class _Watch:
    """What is measured of one training. before: the base's log-odds, one a prompt. change: None where no block is
    measured."""

    chat: ChatModel
    prompts: Sequence[Prompt]
    openings: RefusalOpenings
    before: Sequence[float]
    change: LiveChange | None

    def look(self, blocks: int) -> dict[str, float]:
        """The measures as they are now, by the keys that they are logged under."""
        now = opening_log_odds(self.chat, self.prompts, self.openings).tolist()
        found: dict[str, float] = {}
        for set_, modality in dict.fromkeys((prompt.set, prompt.modality) for prompt in self.prompts):
            at = [n for n, prompt in enumerate(self.prompts) if (prompt.set, prompt.modality) == (set_, modality)]
            requests = [self.prompts[n].request for n in at]
            name = set_ if modality == "text" else f"{set_}.{modality}"
            odds = mean_estimate([now[n] for n in at], requests).value
            drop = mean_estimate([self.before[n] - now[n] for n in at], requests).value
            found |= {f"{PREFIX}refusal_log_odds/{name}": odds or 0.0, f"{PREFIX}refusal_drop/{name}": drop or 0.0}
        if self.change is not None:
            moved = self.change.relative()
            most = sorted(moved, key=lambda block: -moved[block])[:blocks]
            found |= {f"{PREFIX}relative_change/{block}": moved[block] for block in most}
        return found

    def close(self) -> None:
        """Delete what was kept of the start."""
        if self.change is not None:
            self.change.close()


def _chosen(prompts: Sequence[Prompt | str] | None, requests: int) -> list[Prompt]:
    """The prompts to ask: the package's own of `select`, or all that are given; at most so many requests of a set."""
    if prompts is None:
        return asked_prompts(english_prompts(), requests, "select")
    files = [each for each in prompts if isinstance(each, str)]
    loaded = load_prompt_files(files).prompts if files else []
    given = [*loaded, *(each for each in prompts if not isinstance(each, str))]
    chosen = asked_prompts([replace(prompt, split="select") for prompt in given], requests, "select")
    if not any(prompt.set in HARMFUL_SETS for prompt in chosen):
        raise SurgeryError(
            f"TrainerCallback(prompts=...): none of the {len(given)} prompts is harmful or jailbroken, so no refusal "
            'can be lost. Give some, as "requests.txt:harmful".'
        )
    return chosen


def _chat(model: nn.Module, processing: Any) -> ChatModel:
    """The model in training as a chat model, with the Trainer's tokenizer or processor."""
    if processing is None:
        raise SurgeryError(
            "TrainerCallback: the Trainer has no tokenizer to ask with. Give it one: Trainer(processing_class=...)."
        )
    tokenizer = getattr(processing, "tokenizer", processing)
    if not getattr(tokenizer, "is_fast", False):
        raise SurgeryError(
            f"TrainerCallback: {type(tokenizer).__name__} does not tell where tokens stand in the text. Give the "
            "Trainer a fast tokenizer: AutoTokenizer.from_pretrained(..., use_fast=True)."
        )
    return ChatModel(model, tokenizer, processing if tokenizer is not processing else None, decoder_blocks(model))


def _running_trainer() -> Any:
    """The Trainer whose loop is running: it hands itself to no callback, so it is found among the callers.

    Raises SurgeryError where none is.
    """
    frame = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, transformers.Trainer):
            return owner
        if frame.f_back is None:
            break
        frame = frame.f_back
    raise SurgeryError(
        "TrainerCallback: no transformers.Trainer is running, so there is nowhere to log to. Give it to one: "
        "Trainer(callbacks=[...])."
    )
