"""The passes through a live merge that an attribution is made of, each of which can be asked for by itself, by whoever
has the models in memory."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlsurgery.probes.controls import control_choices, control_prompts
from vlsurgery.probes.evaluation.intervals import rate
from vlsurgery.probes.gradients import Gradients
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import ChatModel
from vlsurgery.probes.models.reuse import BlockInputs
from vlsurgery.probes.results import Rate
from vlsurgery.probes.scoring import (
    RefusalChoices,
    ScoredAnswers,
    answer_states,
    greedy_matches,
    mean_divergence,
    refusal_choices,
    refusal_log_odds,
    scored_answers,
)
from vlsurgery.probes.targets import OPENING_TOKENS, LostRefusal, WorkingSet, evenly_spaced
from vlsurgery.probes.weight_parts import WeightParts, own_key_values
from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.progress import Progress, no_progress

MIN_LOST: Final = 4  # lost refusals, fewer are not attributed
MAX_LOST: Final = 96  # prompts with a refusal that are scored
MAX_KEPT: Final = 48  # prompts with an answer to keep that are scored
MAX_KEPT_TOKENS: Final = 32  # of an answer to keep that are scored, from its beginning
SOURCE: Final = "base"
Floats = NDArray[np.float64]


class Counted(Protocol):
    """What is known of the prompts of one split by what was said to them, as `WorkingSet` or without tokens."""

    @property
    def refuse(self) -> Sequence[object]: ...
    @property
    def lost(self) -> Sequence[object]: ...


def too_few_lost(working: Counted) -> str | None:
    """The reason where too few refusals were lost to attribute, else None."""
    if len(working.lost) >= MIN_LOST:
        return None
    return (
        f"the base refuses {len(working.refuse)} of the harmful prompts and the adapted model answers "
        f"{len(working.lost)} of those; to say where refusals were lost takes at least {MIN_LOST}"
    )


class TooFewLostError(SurgeryError):
    """Too few refusals were lost to say where."""


def lost_choices(chat: ChatModel, lost: Sequence[LostRefusal]) -> list[RefusalChoices]:
    """Batches of lost refusals, each read at the first token in which refusal and answer differ."""
    return refusal_choices(
        chat, [item.prompt for item in lost], [item.refusal for item in lost], [item.answer for item in lost]
    )


class Pass(Protocol):
    """What is asked of who has the models in memory, as plain data."""

    def do(self, passes: "AttributionPasses", /) -> Any: ...


@dataclass(frozen=True)
class PathEnds:
    """What an attribution begins with.

    blocks: in order. parts: of them. shared: whether each query head has a key and a value of its own. requests,
    control_requests: of each prompt whose refusal was lost, and of each control. batches: that all of them make.
    start, change: [lost] refusal log-odds of the adapted model, and what the graft's are more. adapted_refused,
    graft_refused: the share of the base's refusals that each begins greedily.
    """

    blocks: tuple[str, ...]
    parts: WeightParts
    own_key_values: bool
    requests: tuple[str, ...]
    control_requests: tuple[str, ...]
    batches: int
    start: Tensor
    change: Tensor
    adapted_refused: Rate
    graft_refused: Rate


@dataclass(frozen=True)
class MeasureEnds:
    """Asks for the ends of the path, and what lies on it."""

    def do(self, passes: "AttributionPasses") -> PathEnds:
        return passes.ends()


@dataclass(frozen=True)
class PathSlopes:
    """Of some prompts at a place on the path.

    owner: [B] their places among lost prompts and controls. z: [B] float64 refusal log-odds. slopes: [B, parts]
    float64; [B, blocks] where parts can't be told (by_part is false).
    """

    owner: Tensor
    z: Tensor
    slopes: Tensor
    by_part: bool


@dataclass(frozen=True)
class TakeSlopes:
    """Asks for the slopes of some batches, by their numbers, where all blocks have one coefficient toward the base."""

    coefficient: float
    batches: tuple[int, ...]

    def do(self, passes: "AttributionPasses") -> PathSlopes:
        return passes.slopes(self.coefficient, self.batches)


@dataclass(frozen=True)
class Moved:
    """What single blocks of the base do in the adapted model. odds: [lost, blocks] refusal log-odds. costs: [blocks] KL
    on the beginnings of the answers to keep, in nats; None where there are none."""

    odds: Tensor
    costs: tuple[float | None, ...]


@dataclass(frozen=True)
class TransplantEach:
    """Asks for the transplants of some blocks, each alone; in the order of all blocks."""

    blocks: tuple[str, ...]

    def do(self, passes: "AttributionPasses") -> Moved:
        return passes.transplanted(self.blocks)


@dataclass(frozen=True)
class TransplantTogether:
    """Asks for [lost] refusal log-odds with some blocks of the base at once."""

    blocks: tuple[str, ...]

    def do(self, passes: "AttributionPasses") -> Tensor:
        return passes.together(self.blocks)


class AttributionPasses:
    """A live merge of the adapted model toward the base, and the prompts that are attributed.

    Only while pictures are kept (`keeping_pictures`), which every pass reads again. Between calls the live model may
    stand at a place on the path; `restore` brings the adapted weights back.
    """

    def __init__(self, live: InMemoryMerge, working: WorkingSet, progress: Progress = no_progress) -> None:
        self._live, self._working, self._progress = live, working, progress
        self._lost = evenly_spaced(working.lost, MAX_LOST)
        self._controls = control_prompts(working, self._lost)
        self._parts = WeightParts.finest(live)
        self._path = ExitStack()
        self._on_path = False

    def restore(self) -> None:
        """Have the adapted weights in the live model."""
        self._path.close()
        self._on_path = False

    @cached_property
    def _batches(self) -> list[RefusalChoices]:
        return lost_choices(self._live.chat, self._lost)

    @cached_property
    def _every(self) -> list[RefusalChoices]:
        """Batches of lost prompts, then of controls."""
        return [*self._batches, *control_choices(self._live.chat, self._controls, len(self._lost))]

    @cached_property
    def _gradients(self) -> Gradients:
        return Gradients(self._live, self._parts)

    def ends(self) -> PathEnds:
        """What `MeasureEnds` asks for. Raises TooFewLostError."""
        if reason := too_few_lost(self._working):
            raise TooFewLostError(f"{reason}. Give more harmful prompts with --prompts.")
        self.restore()
        live = self._live
        start = refusal_log_odds(live.chat, self._batches)
        with live.at(live.everywhere(**{SOURCE: 1.0})):
            change = refusal_log_odds(live.chat, self._batches) - start
        before, after = self._greedy()
        return PathEnds(
            blocks=live.blocks,
            parts=self._parts,
            own_key_values=own_key_values(live.alignment, live.like),
            requests=tuple(item.prompt.request for item in self._lost),
            control_requests=tuple(item.prompt.request for item in self._controls),
            batches=len(self._every),
            start=start,
            change=change,
            adapted_refused=before,
            graft_refused=after,
        )

    def _greedy(self) -> tuple[Rate, Rate]:
        """The share of the base's refusals that the adapted model begins greedily, and that the graft does."""
        live, refusals = self._live, evenly_spaced(self._working.refuse, MAX_LOST)
        prompts = [prompt for prompt, _ in refusals]
        batches = scored_answers(live.chat, prompts, [refusal[:OPENING_TOKENS] for _, refusal in refusals])
        before = greedy_matches(live.chat, batches).tolist()
        with live.at(live.everywhere(**{SOURCE: 1.0})):
            after = greedy_matches(live.chat, batches).tolist()
        requests = [prompt.request for prompt in prompts]
        return rate(before, requests), rate(after, requests)

    def slopes(self, coefficient: float, numbers: Sequence[int]) -> PathSlopes:
        """What `TakeSlopes` asks for. The weights stay there, as another place mostly follows."""
        if not self._on_path:
            self._path.enter_context(self._live.staying())
            self._on_path = True
        batches = [self._every[number] for number in numbers]
        ids = [item.prompt.id for item in (*self._lost, *self._controls)]
        found, parts = self._gradients.at_parts(self._live.everywhere(**{SOURCE: coefficient}), batches, ids)
        owner = torch.cat([batch.owner.cpu() for batch in batches])
        values = found.jacobian.double() if parts is None else parts
        slopes = values[owner, :, self._live.sources.index(SOURCE)]
        return PathSlopes(owner, found.z[owner], slopes, by_part=parts is not None)

    def transplanted(self, blocks: Sequence[str]) -> Moved:
        """What `TransplantEach` asks for."""
        self.restore()
        live, odds, costs = self._live, list[Tensor](), list[float | None]()
        keep = self._kept()
        reference = answer_states(live.chat, keep)
        below = BlockInputs(live.chat, [*(batch.inputs for batch in self._batches), *(batch.inputs for batch in keep)])
        for block in self._progress(blocks, "transplanting single blocks"):
            with _transplanted(live, block, below):
                odds.append(refusal_log_odds(live.chat, self._batches))
                costs.append(mean_divergence(live.chat, keep, reference, live.adapted_head) if keep else None)
        return Moved(torch.stack(odds, dim=1), tuple(costs))

    def _kept(self) -> list[ScoredAnswers]:
        """The beginnings of the answers to keep."""
        kept = evenly_spaced(self._working.keep, MAX_KEPT)
        answers = [answer[:MAX_KEPT_TOKENS] for _, answer in kept]
        return scored_answers(self._live.chat, [prompt for prompt, _ in kept], answers)

    def together(self, blocks: Sequence[str]) -> Tensor:
        """What `TransplantTogether` asks for."""
        self.restore()
        live = self._live
        with live.at({block: {SOURCE: 1.0} for block in blocks}):
            return refusal_log_odds(live.chat, self._batches)


@contextmanager
def _transplanted(live: InMemoryMerge, block: str, below: BlockInputs) -> Iterator[None]:
    """The model with one block of the base; the blocks below it, which are the adapted model's, do not run again."""
    layer = live.layer_of(block)
    with ExitStack() as stack:
        if below.works and layer is not None:
            below.advance(layer)
            stack.enter_context(below.beginning_there())
        stack.enter_context(live.at({block: {SOURCE: 1.0}}))
        yield
