"""Where an intervention acts in a running model: layers, sites, heads and tokens, with a hook at each meanwhile."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from torch import Tensor, nn

from vlsurgery.probes.models.block_parts import PARTS, Part, head_count, head_matrix, part_modules
from vlsurgery.probes.models.blocks import decoder_blocks, passes_text_on
from vlsurgery.probes.models.chat import ChatModel
from vlsurgery.probes.models.taps import Edit, Kind, at_heads, tapped
from vlsurgery.probes.models.token_choice import TokenChoice, TokenKind, on_tokens
from vlsurgery.probes.models.words import PLACEHOLDER_IDS
from vlsurgery.surgery.errors import SurgeryError

Model = ChatModel | nn.Module
Layers = int | Iterable[int] | None
Sites = Part | Sequence[Part]
HEADS: Final = "heads"


class Point(NamedTuple):
    """One place in a model: a site of a layer, and which of the modules there. site: a `Part`, or "heads"."""

    layer: int
    site: str
    number: int = 0

    def __str__(self) -> str:
        where = {"input": "the input", "residual": "the residual stream", HEADS: "the heads"}.get(self.site, self.site)
        return f"{where} of layer {self.layer}"


PointEdit = Callable[[Point, Tensor], Tensor]


@dataclass(frozen=True)
class RunningModel:
    """A model in memory, with what interventions need of it."""

    module: nn.Module
    blocks: Sequence[nn.Module]
    picture_ids: tuple[int, ...]

    @classmethod
    def of(cls, model: Model) -> "RunningModel":
        """Raises SurgeryError where it is no model of transformers and no `ChatModel`."""
        if isinstance(model, ChatModel):
            return cls(model.model, model.blocks, tuple(model.picture_ids))
        config: Any = getattr(model, "config", None)
        if not isinstance(model, nn.Module) or not hasattr(config, "get_text_config"):
            raise SurgeryError(
                f"an intervention takes a model in memory, of transformers or a ChatModel, not {type(model).__name__}. "
                "Load the checkpoint first."
            )
        ids = {getattr(config, name, None) for name in PLACEHOLDER_IDS}
        return cls(model, decoder_blocks(model), tuple(sorted(at for at in ids if isinstance(at, int))))

    def layer_numbers(self, layers: Layers) -> tuple[int, ...]:
        """Layers as numbers. Raises SurgeryError for one that is not there, and for none."""
        count = len(self.blocks)
        numbers = tuple(range(count)) if layers is None else (layers,) if isinstance(layers, int) else tuple(layers)
        if wrong := [layer for layer in numbers if not 0 <= layer < count]:
            raise SurgeryError(f"layers: the model has layers 0 to {count - 1}, but {wrong[0]} was asked for.")
        if not numbers:
            raise SurgeryError("layers: give one at least, or leave layers out for all.")
        return tuple(dict.fromkeys(numbers))

    @property
    def width(self) -> int:
        """The entries of a hidden state."""
        config: Any = self.module.config
        return int(config.get_text_config().hidden_size)


@dataclass(frozen=True)
class Reach:
    """Where an intervention acts in one model. modules: point -> module. heads: of each layer's, where it is heads."""

    model: RunningModel
    modules: dict[Point, nn.Module]
    heads: tuple[int, ...]
    tokens: TokenChoice

    @classmethod
    def of(
        cls,
        model: RunningModel,
        layers: Layers,
        sites: Sites,
        heads: Sequence[int] | None,
        positions: Iterable[int] | int | None,
        tokens: TokenKind | None,
        optional: Sequence[Part] = (),
    ) -> "Reach":
        """optional: sites that a layer may lack. Raises SurgeryError for a layer, site or head that is not there."""
        chosen = (positions,) if isinstance(positions, int) else None if positions is None else tuple(positions)
        choice = TokenChoice(chosen, tokens, model.picture_ids)
        numbers = model.layer_numbers(layers)
        if heads is not None:
            return cls(model, _head_modules(model, numbers, heads), tuple(heads), choice)
        modules: dict[Point, nn.Module] = {}
        for layer in numbers:
            for site in _named_sites(sites):
                found = part_modules(model.blocks[layer], site)
                if not found and site not in optional:
                    raise SurgeryError(
                        f"layer {layer} of {type(model.module).__name__} has no part that is known as {site}. "
                        "Take site 'residual', or other layers."
                    )
                modules |= {Point(layer, site, number): module for number, module in enumerate(found)}
        return cls(model, modules, (), choice)

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(point.layer for point in self.modules))

    @property
    def sites(self) -> tuple[Part, ...]:
        named = {point.site for point in self.modules}
        return tuple(part for part in PARTS if part in named)

    @contextmanager
    def edited(self, edit: PointEdit) -> Iterator[None]:
        """While open, `edit` replaces the hidden states at every point, at the chosen tokens.

        Raises SurgeryError on exit where the model ran and a point did not.
        """
        run = _Passing()
        with ExitStack() as stack:
            starting = self.model.module.register_forward_pre_hook(self._starting(run), with_kwargs=True, prepend=True)
            stack.callback(starting.remove)
            stack.callback(self.model.module.register_forward_hook(run.finish).remove)
            for point, module in self.modules.items():
                whole = self._at(point, edit, run)
                if point.site == HEADS:
                    stack.enter_context(tapped(module, "heads", at_heads(whole, self.heads), self._head_count))
                else:
                    kind: Kind = "input" if point.site == "input" else "output"
                    stack.enter_context(tapped(module, kind, whole))
            yield
        self._check(run)

    @property
    def _head_count(self) -> int:
        return head_count(self.model.module) or 0

    def _starting(self, run: "_Passing") -> Callable[..., None]:
        def start(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ARG001
            run.started = True
            run.chosen = self.tokens.of({**({"input_ids": args[0]} if args else {}), **kwargs})

        return start

    def _at(self, point: Point, edit: PointEdit, run: "_Passing") -> Edit:
        def change(hidden: Tensor) -> Tensor:
            run.reached.add(point)
            if not run.started and not self.tokens.all:
                raise SurgeryError("an intervention on some tokens needs the whole model to run, not a part of it.")
            return on_tokens(run.chosen, edit(point, hidden), hidden)

        return change

    def _check(self, run: "_Passing") -> None:
        missed = [
            point
            for point in self.modules
            if point not in run.reached and not passes_text_on(self.model.blocks[point.layer])
        ]
        if run.finished and missed:
            raise SurgeryError(
                f"the model ran without {len(missed)} of the {len(self.modules)} places that were to be changed, the "
                f"first is {missed[0]}: the hook there did not take hold. Take other layers or sites."
            )


@dataclass
class _Passing:
    """What happened since an intervention began. started, finished: whether a pass was. chosen: the tokens [B, T] of
    the latest; None: all."""

    started: bool = False
    finished: bool = False
    chosen: Tensor | None = None
    reached: set[Point] = field(default_factory=set)

    def finish(self, *_: object) -> None:
        self.finished = True


def _named_sites(sites: Sites) -> tuple[Part, ...]:
    named: tuple[Part, ...] = (sites,) if isinstance(sites, str) else tuple(sites)
    if wrong := [site for site in named if site not in PARTS]:
        raise SurgeryError(f"sites: choose among {', '.join(PARTS)}, not {wrong[0]!r}.")
    if not named:
        raise SurgeryError(f"sites: give one at least of {', '.join(PARTS)}.")
    return tuple(dict.fromkeys(named))


def _head_modules(model: RunningModel, layers: Sequence[int], heads: Sequence[int]) -> dict[Point, nn.Module]:
    count = head_count(model.module)
    found: dict[Point, nn.Module] = {}
    for layer in layers:
        matrix = head_matrix(model.blocks[layer])
        if matrix is None or count is None or matrix.in_features % count:
            raise SurgeryError(
                f"heads: layer {layer} of {type(model.module).__name__} has no plain matrix behind its heads, so they "
                "can't be told apart. Take site 'attention'."
            )
        found[Point(layer, HEADS)] = matrix
    if wrong := [head for head in heads if not 0 <= head < (count or 0)]:
        raise SurgeryError(f"heads: the model has heads 0 to {(count or 0) - 1}, but {wrong[0]} was asked for.")
    if not heads or len(set(heads)) < len(heads):
        raise SurgeryError("heads: give each head once, and one at least.")
    return found
