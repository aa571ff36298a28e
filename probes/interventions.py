"""Interventions on a model in memory: context managers that change its hidden states while they are open.

    with vlsurgery.ablate(model, direction):                   # nothing along the direction is left anywhere
        model.generate(...)
    with vlsurgery.add(model, direction, layers=14):           # the direction is added behind one layer
        ...
    with vlsurgery.record(graft) as states:                    # what a model makes of some inputs ...
        graft(**inputs)
    with vlsurgery.patch(adapted, states, layers=range(8), tokens="image"):     # ... put into another one
        adapted(**inputs)
    with vlsurgery.transplant(adapted, base, layers=3):        # another model's weights in a layer
        ...

All but `transplant` take the same places. `layers`: numbers from 0, all where left out. `sites`: `input` (what a layer
reads), `residual` (the residual stream behind it), `attention` and `mlp` (what these return, before they are added).
`heads`: numbers of attention heads, in place of sites: what each adds to the stream through the matrix behind it.
`positions`: of tokens in each prompt, without its padding, from 0 or from -1 backwards. `tokens`: `image` or `text`.

A model is one of transformers, or a `ChatModel`. Whatever happens, it is as it was when a context ends; nothing is
written, and no input is changed. Of nested contexts the outer one acts first. Each raises SurgeryError for a place that
the model has not, and on exit where the model ran and passed a place by.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlsurgery.probes.directions import Direction
from vlsurgery.probes.models.extras import CACHES, cached_tokens
from vlsurgery.probes.models.points import Layers, Model, Point, Reach, RunningModel, Sites
from vlsurgery.probes.models.token_choice import TokenKind
from vlsurgery.probes.transplanting import transplant
from vlsurgery.surgery.errors import SurgeryError

__all__ = ["Recording", "ablate", "add", "patch", "record", "transplant"]

# Where a direction is ablated unless told otherwise: wherever the stream is read and written (Arditi et al., 2.4).
EVERYWHERE: tuple[Any, ...] = ("input", "residual", "attention", "mlp")


@contextmanager
def ablate(
    model: Model,
    direction: Direction | Tensor,
    *,
    layers: Layers = None,
    sites: Sites | None = None,
    heads: Sequence[int] | None = None,
    positions: Iterable[int] | int | None = None,
    tokens: TokenKind | None = None,
) -> Iterator[None]:
    """While open, hidden states have no part along the direction: x - r (r . x), with r of length 1.

    direction: [d] of any length but 0, or [k, d] several, whose span is taken out. sites: by default all of them.
    """
    running = RunningModel.of(model)
    units = _units(direction, running)
    place = Reach.of(
        running, layers, sites or EVERYWHERE, heads, positions, tokens, () if sites else ("attention", "mlp")
    )
    with place.edited(lambda _, hidden: _without(hidden, units)):
        yield


@contextmanager
def add(
    model: Model,
    direction: Direction | Tensor,
    coefficient: float = 1.0,
    *,
    layers: Layers = None,
    sites: Sites = "residual",
    heads: Sequence[int] | None = None,
    positions: Iterable[int] | int | None = None,
    tokens: TokenKind | None = None,
) -> Iterator[None]:
    """While open, coefficient x direction is added to hidden states; of a `Direction`, its `vector`.

    direction: [d], added as long as it is. With several layers it is added at each of them, and to what was added
    before. Where two modules share a site, the first of them gets it.
    """
    running = RunningModel.of(model)
    vector = coefficient * _rows(direction.vector if isinstance(direction, Direction) else direction, running, 1)[0]
    place = Reach.of(running, layers, sites, heads, positions, tokens)
    first = {point: module for point, module in place.modules.items() if point.number == 0}
    with Reach(place.model, first, place.heads, place.tokens).edited(lambda _, hidden: _plus(hidden, vector)):
        yield


@dataclass(frozen=True)
class Recording:
    """The hidden states of the forward passes that were recorded, one after the other.

    passes: place -> [B, T, hidden], of heads [B, T, heads, hidden]. heads: which, where it is of heads.
    """

    passes: list[dict[Point, Tensor]] = field(default_factory=list)
    heads: tuple[int, ...] = ()

    def states(self, layer: int, site: str = "residual", number: int = 0) -> Tensor:
        """What was recorded at one place in the only, or in the last, pass."""
        if not self.passes:
            raise SurgeryError("record: the model has not run yet. Call it while the recording is open.")
        return self.passes[-1][Point(layer, site, number)]


@contextmanager
def record(
    model: Model, *, layers: Layers = None, sites: Sites = "residual", heads: Sequence[int] | None = None
) -> Iterator[Recording]:
    """While open, every forward pass is recorded, at all tokens and without gradients."""
    running = RunningModel.of(model)
    place = Reach.of(running, layers, sites, heads, None, None)
    recording = Recording(heads=place.heads)

    def keep(point: Point, hidden: Tensor) -> Tensor:
        if not recording.passes:
            raise SurgeryError("record: a part of the model ran, not the model itself. Call the model.")
        recording.passes[-1][point] = hidden.detach()
        return hidden

    begin = running.module.register_forward_pre_hook(lambda *_: recording.passes.append({}))
    try:
        with place.edited(keep):
            yield recording
    finally:
        begin.remove()


@contextmanager
def patch(
    model: Model,
    source: Model | Recording,
    *,
    layers: Layers = None,
    sites: Sites = "residual",
    heads: Sequence[int] | None = None,
    positions: Iterable[int] | int | None = None,
    tokens: TokenKind | None = None,
) -> Iterator[None]:
    """While open, hidden states are those of a source: of another model on the same inputs, or of a recording.

    source: a model, which then runs before each pass of this one and must take the same inputs (while generating, take
    use_cache=False); or what `record` gave, pass by pass, as for the same model at other weights or on other prompts.
    """
    running = RunningModel.of(model)
    place = Reach.of(running, layers, sites, heads, positions, tokens)
    feed = _replayed(source, place) if isinstance(source, Recording) else _run_along(source, place)
    now: dict[Point, Tensor] = {}

    def start(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG001
        now.clear()
        now.update(feed(args, kwargs))

    begin = running.module.register_forward_pre_hook(start, with_kwargs=True)
    try:
        with place.edited(lambda point, hidden: _from_source(point, hidden, now)):
            yield
    finally:
        begin.remove()


Feed = Callable[[tuple[Any, ...], dict[str, Any]], Mapping[Point, Tensor]]  # a pass's inputs -> the states to put in


def _replayed(recording: Recording, place: Reach) -> Feed:
    """Gives the recorded passes one after the other."""
    if missing := sorted(set(place.heads) - set(recording.heads)):
        raise SurgeryError(f"patch: head {missing[0]} was not recorded. Record the heads that are to be patched.")
    left = iter(recording.passes)

    def next_pass(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[Point, Tensor]:  # noqa: ARG001
        states = next(left, None)
        if states is None:
            raise SurgeryError(
                f"patch: the model runs more often than the {len(recording.passes)} passes of the recording. Record as "
                "many passes as are to be patched, in the same order."
            )
        return {point: _picked(value, recording.heads, place.heads) for point, value in states.items()}

    return next_pass


def _picked(value: Tensor, recorded: Sequence[int], heads: Sequence[int]) -> Tensor:
    """Of recorded heads [B, T, heads, hidden] some; other states as they are."""
    return value[..., [recorded.index(head) for head in heads], :] if heads else value


def _run_along(source: Model, place: Reach) -> Feed:
    """Runs another model on the inputs of each pass."""
    other = RunningModel.of(source)
    if other.module is place.model.module:
        raise SurgeryError(
            "patch: the source is the model itself. Record its states first, with vlsurgery.record, and give those."
        )
    if len(other.blocks) != len(place.model.blocks):
        raise SurgeryError(
            f"patch: the source has {len(other.blocks)} layers and the model {len(place.model.blocks)}. Give a source "
            "of the same depth."
        )

    def run(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Mapping[Point, Tensor]:
        heads = place.heads or None
        with torch.no_grad(), record(source, layers=place.layers, sites=place.sites, heads=heads) as states:
            other.module(*args, **_for_source(other.module, kwargs))
        return states.passes[-1]

    return run


def _for_source(module: nn.Module, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A pass's arguments for the source: without the other model's cache, and with all that it must understand."""
    if cached_tokens(kwargs):
        raise SurgeryError("patch: a source model reads whole prompts. Generate with use_cache=False.")
    known = inspect.signature(module.forward).parameters
    given = {key: value for key, value in kwargs.items() if key not in (*CACHES, "use_cache", "labels")}
    if strange := [key for key, value in given.items() if isinstance(value, Tensor) and key not in known]:
        raise SurgeryError(
            f"patch: the source, a {type(module).__name__}, takes no {strange[0]}. Give prompts without pictures, or "
            "record states of a model that sees."
        )
    return {**given, "use_cache": False}


def _from_source(point: Point, hidden: Tensor, states: Mapping[Point, Tensor]) -> Tensor:
    if point not in states:
        raise SurgeryError(f"patch: the source has no states for {point}. Record every place that is patched.")
    if states[point].shape != hidden.shape:
        raise SurgeryError(
            f"patch: {point} is {list(hidden.shape)} in the model and {list(states[point].shape)} in the source. Give "
            "both the same inputs, and models of one width."
        )
    return states[point].to(hidden)


def _rows(direction: Tensor, model: RunningModel, most: int | None = None) -> Tensor:
    """The direction as rows [k, d] in double precision. Raises SurgeryError where it does not fit the model."""
    rows = torch.atleast_2d(direction.detach()).double()
    if rows.ndim != 2 or rows.shape[1] != model.width or (most is not None and len(rows) > most):
        wanted = f"[{model.width}]" if most == 1 else f"[{model.width}], or several of them as [k, {model.width}]"
        raise SurgeryError(
            f"the direction is {list(direction.shape)}, but the model's hidden states take {wanted}. Give one of a "
            "layer and position of this model."
        )
    if not rows.isfinite().all():
        raise SurgeryError("the direction holds NaN or infinite values. Fit it to finite states.")
    return rows


def _units(direction: Direction | Tensor, model: RunningModel) -> Tensor:
    """[k, d] rows of length 1 at right angles, that span the direction."""
    rows = _rows(direction.units if isinstance(direction, Direction) else direction, model)
    lengths = rows.norm(dim=1)
    if not lengths.all():
        raise SurgeryError("the direction has length 0, so there is nothing to ablate. Give another one.")
    rows = rows / lengths[:, None]
    if len(rows) == 1:
        return rows
    _, spread, axes = torch.linalg.svd(rows, full_matrices=False)
    rounding = max(rows.shape) * torch.finfo(torch.float32).eps  # what the rows were given in, at best
    return axes[spread > spread[0] * rounding]  # rows may span less than k


def _working(hidden: Tensor) -> torch.dtype:
    """What is computed in: at least float32."""
    return torch.promote_types(hidden.dtype, torch.float32)


def _without(hidden: Tensor, units: Tensor) -> Tensor:
    whole = hidden.to(_working(hidden))
    rows = units.to(whole)
    return (whole - (whole @ rows.T) @ rows).to(hidden.dtype)


def _plus(hidden: Tensor, vector: Tensor) -> Tensor:
    whole = hidden.to(_working(hidden))
    return (whole + vector.to(whole)).to(hidden.dtype)
