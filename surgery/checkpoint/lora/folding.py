"""Folding an adapter into a checkpoint: which of its changes goes to which rows of which tensor."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from vlsurgery.surgery.checkpoint.lazy_tensor import LazyTensor
from vlsurgery.surgery.checkpoint.lora.adapter import CONFIG, Adapter, Module
from vlsurgery.surgery.checkpoint.lora.locator import Places, Spot
from vlsurgery.surgery.checkpoint.lora.low_rank import (
    ColumnMagnitude,
    Factors,
    FoldedTensor,
    LowRank,
    Patch,
    Replacement,
    RowMagnitude,
    Shift,
    TokenRows,
)
from vlsurgery.surgery.errors import CheckpointError

# Models whose modules of experts say that they have inputs down; PEFT believes them, and else takes outputs for down.
INPUTS_DOWN: Final = frozenset({"aria", "aria_text", "gpt_oss", "openai_privacy_filter"})


def fold(tensors: Mapping[str, LazyTensor], config: Mapping[str, Any], adapter: Adapter) -> dict[str, LazyTensor]:
    """The base's tensors, those that an adapter changes folded as they are read: what PEFT's own merge would give.

    tensors, config: of the base. Raises CheckpointError that names the adapter's tensor when it has no one clear place
    in the base, or doesn't fit there: nothing is left out in silence.
    """
    return _Folder(tensors, config, adapter).fold()


class _Folder:
    """The state of one folding while it is prepared."""

    def __init__(self, tensors: Mapping[str, LazyTensor], config: Mapping[str, Any], adapter: Adapter) -> None:
        self.tensors = tensors
        self.adapter = adapter
        self.turns = _inputs_down(config)
        self.may_tie = config.get("tie_word_embeddings") is not False
        changed = [name for module in adapter.modules for name in adapter.names(module)]
        self.places = Places(tensors, [*changed, *adapter.replaced, *adapter.beneath])
        self.patches: dict[str, list[Patch]] = {}
        self.widths: dict[str, int] = {}
        self.claims: dict[str, list[tuple[Spot, str]]] = {}

    def fold(self) -> dict[str, LazyTensor]:
        self._beneath()
        self._replaced()
        for module in self.adapter.modules:
            if "trainable_tokens_delta" in module.parts:
                self._tokens(module)
            elif "lora_embedding_A" in module.parts:
                self._embedding(module)
            else:
                self._linear(module)
        return {
            name: FoldedTensor.of(tensor, self.widths[name], self.patches[name]) if name in self.patches else tensor
            for name, tensor in self.tensors.items()
        }

    def _beneath(self) -> None:
        """The base's own tables as the adapter knew them: in training nothing else lay beneath it."""
        held: dict[str, LazyTensor] = {}
        for name, source in self.adapter.beneath.items():
            spot = self._whole(name, source, self._tied(name))
            if spot.name in held and not held[spot.name].load().equal(source.load()):
                raise self.adapter.fault(name, f"the adapter holds {spot.name} twice, and not the same.")
            held[spot.name] = source
            self._add(spot, Replacement(source, spot.start, spot.stop, spot.output))

    def _replaced(self) -> None:
        """Tensors that the adapter holds whole: `modules_to_save`, trained biases."""
        tables: dict[str, list[LazyTensor]] = {}
        for name, source in self.adapter.replaced.items():
            tied = self._tied(name)
            spot = self._whole(name, source, tied)
            if self._tied_table == spot.name:
                tables.setdefault(spot.name, []).append(source)
            if tied is None:
                self._claim(spot, name)
                self._add(spot, Replacement(source, spot.start, spot.stop, spot.output))
        for table, sources in tables.items():
            if len(sources) != 2 or not sources[0].load().equal(sources[1].load()):
                raise self.adapter.fault(
                    table,
                    "the base ties its head to the embedding, and with this adapter the two differ. Merge it with "
                    "PEFT, set tie_word_embeddings to false in the config, and give the saved model.",
                )

    def _whole(self, name: str, source: LazyTensor, tied: str | None) -> Spot:
        """The place of a tensor that the adapter holds whole."""
        shape = source.shape or (1,)
        if tied is not None and self.tensors[tied].shape == shape:
            return Spot(tied, shape[-1], 0, shape[0])
        spots = self.places.spots(name, shape[0], math.prod(shape[1:]))
        if len(spots) != 1 or spots[0].transposed:
            raise self._no_place(name, source.shape)
        return spots[0]

    def _tied(self, name: str) -> str | None:
        """The embedding in the file when `name` is a head that the base ties to it."""
        return self.places.head_is_tied(name) if self.may_tie else None

    @cached_property
    def _tied_table(self) -> str | None:
        """The embedding in the file when the base ties its head to it."""
        return self._tied("lm_head.weight")

    def _tokens(self, module: Module) -> None:
        source = module.parts["trainable_tokens_delta"]
        indices = self.adapter.config.get("trainable_token_indices")
        if isinstance(indices, Mapping):
            ends = [key for key in indices if f".{module.path}".endswith(f".{key}")]
            indices = indices[ends[0]] if len(ends) == 1 else None
        name = f"{module.path}.weight"
        found = self.places.find(name)
        if found is None or len(source.shape) != 2 or self.tensors[found].shape[1:] != source.shape[1:]:
            raise self._no_place(name, source.shape)
        height = self.tensors[found].shape[0]
        counts = isinstance(indices, list) and all(type(index) is int and 0 <= index < height for index in indices)
        if not isinstance(indices, list) or not counts or len(indices) != source.shape[0]:
            raise self.adapter.fault(
                module.path,
                f"{source.shape[0]} rows for tokens, but trainable_token_indices in {CONFIG} doesn't name as many "
                f"of the {height} tokens of {found}.",
            )
        spot = Spot(found, source.shape[1], 0, height)
        self._claim(spot, name)
        self._add(spot, TokenRows(source, tuple(indices)))

    def _embedding(self, module: Module) -> None:
        name = f"{module.path}.weight"
        factors = self._factors(module, "lora_embedding_A", "lora_embedding_B")
        found = self.places.find(name)
        if found is None or self.tensors[found].shape != (factors.inputs, factors.outputs):
            raise self._no_place(name, (factors.inputs, factors.outputs))
        spot = Spot(found, factors.outputs, 0, factors.inputs, transposed=True)
        self._add_low_rank(module, module.path, factors, [spot])

    def _linear(self, module: Module) -> None:
        factors = self._factors(module, "lora_A", "lora_B")
        found = {name: spots for name in self.adapter.names(module) if (spots := self._spots(name, factors))}
        if len(found) > 1:
            # Two parameters whose shapes mirror each other: PEFT takes all of a module the same way round.
            found = {name: spots for name, spots in found.items() if spots[0].transposed == self.turns}
        if len(found) != 1:
            raise self._no_place(" or ".join(self.adapter.names(module)), (factors.outputs, factors.inputs))
        ((name, spots),) = found.items()
        path = module.path if name == f"{module.path}.weight" else name
        self._add_low_rank(module, path, factors, spots)
        bias = module.parts.get("lora_B.bias")
        if bias is not None:
            shifted = self.places.spots(f"{module.path}.bias", factors.outputs, 1)
            if len(shifted) != 1:
                raise self._no_place(f"{module.path}.bias", bias.shape)
            spot, scale = shifted[0], self.adapter.scale(path, factors.rank)
            self._add(spot, Shift(bias, scale, spot.start, spot.stop, spot.output))

    def _spots(self, name: str, factors: Factors) -> list[Spot]:
        turned = bool(self.adapter.config.get("fan_in_fan_out"))
        square = self._square[not name.endswith(".weight")]
        spots = self.places.spots(name, factors.outputs, factors.inputs, square, turned)
        tied = self._tied(name)
        if tied is not None and self.tensors[tied].shape == (factors.outputs, factors.inputs):
            return [Spot(tied, factors.inputs, 0, factors.outputs)]
        return spots if all(factors.down.shape[0] % spot.experts == 0 for spot in spots) else []

    def _add_low_rank(self, module: Module, path: str, factors: Factors, spots: list[Spot]) -> None:
        magnitude = module.parts.get("lora_magnitude_vector")
        if magnitude is None and self.adapter.config.get("use_dora"):
            raise self.adapter.fault(path, "lora_magnitude_vector is missing. Download the adapter again.")
        for spot in spots:
            self._claim(spot, path)
            part = Factors(factors.down, factors.up, spot.expert, spot.experts)
            scale = self.adapter.scale(path, part.rank)
            self._add(spot, LowRank(part, scale, spot.start, spot.stop, spot.output, spot.transposed))
            if magnitude is not None:
                if magnitude.numel != factors.outputs or spot.experts > 1:
                    raise self.adapter.fault(path, f"{magnitude.numel} magnitudes for {factors.outputs} outputs.")
                self._add(spot, self._magnitude(spot, magnitude))

    def _magnitude(self, spot: Spot, magnitude: LazyTensor) -> Patch:
        if not spot.transposed:
            return RowMagnitude(magnitude, spot.start, spot.stop, spot.output)
        return ColumnMagnitude(magnitude, FoldedTensor.of(self.tensors[spot.name], spot.width, self.patches[spot.name]))

    def _claim(self, spot: Spot, owner: str) -> None:
        """Note who changes which rows: two that claim the same are a sign that one of them was misplaced."""
        for other, earlier in self.claims.setdefault(spot.name, []):
            if other.start < spot.stop and spot.start < other.stop:
                raise self.adapter.fault(owner, f"would change the same rows of {spot.name} as {earlier}.")
        self.claims[spot.name].append((spot, owner))

    def _add(self, spot: Spot, patch: Patch) -> None:
        if not self.tensors[spot.name].is_float:
            name = f"{spot.name}, {self.tensors[spot.name].dtype_name}"
            raise self.adapter.fault(name, "not a plain weight that an adapter could change.")
        self.widths[spot.name] = spot.width
        self.patches.setdefault(spot.name, []).append(patch)

    @cached_property
    def _square(self) -> dict[bool, bool | None]:
        """Whether tensors that are as high as wide have inputs down, of weights (False) and of other parameters (True):
        as all that are not square; where there are none, as settings and model say; None where they disagree."""
        stated = {False: bool(self.adapter.config.get("fan_in_fan_out")), True: self.turns}
        turned: dict[bool, set[bool]] = {False: set(), True: set()}
        for module in self.adapter.modules:
            if "lora_A" in module.parts and "lora_B" in module.parts:
                factors = self._factors(module, "lora_A", "lora_B")
                for name in self.adapter.names(module) if factors.outputs != factors.inputs else ():
                    spots = self.places.spots(name, factors.outputs, factors.inputs, turned=stated[False])
                    turned[not name.endswith(".weight")] |= {spot.transposed for spot in spots}
        return {
            kind: stated[kind] if not seen else next(iter(seen)) if len(seen) == 1 else None
            for kind, seen in turned.items()
        }

    def _factors(self, module: Module, down: str, up: str) -> Factors:
        missing = [part for part in (down, up) if part not in module.parts]
        if missing:
            raise self.adapter.fault(module.path, f"{missing[0]} is missing. Download the adapter again.")
        factors = Factors(module.parts[down], module.parts[up])
        ranks = factors.down.shape[:1], factors.up.shape[1:2]
        if ranks[0] != ranks[1] or not all(ranks) or not ranks[0][0]:
            raise self.adapter.fault(
                module.path, f"{down} {factors.down.shape} and {up} {factors.up.shape} don't share a rank."
            )
        return factors

    def _no_place(self, name: str, shape: tuple[int, ...]) -> CheckpointError:
        found = self.places.find(name)
        if found is not None:
            return self.adapter.fault(
                name,
                f"{_by(shape)}, but {found} of the base is {_by(self.tensors[found].shape)}. Give the base that the "
                "adapter was trained on; where it was resized, merge with PEFT (merge_and_unload) and give the saved "
                "model.",
            )
        return self.adapter.fault(
            name,
            f"no tensor of the base ({len(self.tensors)} tensors) is clearly this one ({_by(shape)}). Check that the "
            "adapter was trained on this base; else merge it with PEFT (merge_and_unload), and give the saved model.",
        )


def _inputs_down(config: Mapping[str, Any]) -> bool:
    parts = [config, *(value for value in config.values() if isinstance(value, Mapping))]
    return any(part.get("model_type") in INPUTS_DOWN for part in parts)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"
