"""Folding of an adapter into a checkpoint: which of its changes applies to which rows of which tensor."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from vlsurgery.surgery.architecture.decoder_stack import format_shape
from vlsurgery.surgery.checkpoint.lazy_tensor import LazyTensor
from vlsurgery.surgery.checkpoint.lora.adapter import AdaptedModule, Adapter
from vlsurgery.surgery.checkpoint.lora.low_rank import (
    AddBias,
    ColumnMagnitude,
    Factors,
    FoldedTensor,
    LowRank,
    Patch,
    ReplaceRows,
    RowMagnitude,
    RowRange,
    TokenRows,
)
from vlsurgery.surgery.checkpoint.lora.target_parameters import ParameterLocator
from vlsurgery.surgery.checkpoint.lora.trained_parts import ADAPTER_CONFIG as CONFIG
from vlsurgery.surgery.errors import CheckpointError

# Model types whose experts PEFT takes as stored [in, out]; all others as [out, in].
TRANSPOSED_EXPERTS: Final = frozenset({"aria", "aria_text", "gpt_oss", "openai_privacy_filter"})


def fold(tensors: Mapping[str, LazyTensor], config: Mapping[str, Any], adapter: Adapter) -> dict[str, LazyTensor]:
    """The base's tensors with the adapter folded in as they are read: what PEFT's own merge would give.

    tensors, config: of the base. Raises CheckpointError that names an adapter's tensor without exactly one place in the
    base, or of another shape than there.
    """
    return _Folder(tensors, config, adapter).fold()


class _Folder:
    """The state of one folding while it is prepared."""

    def __init__(self, tensors: Mapping[str, LazyTensor], config: Mapping[str, Any], adapter: Adapter) -> None:
        self.tensors = tensors
        self.adapter = adapter
        self.transposed_experts = _transposes_experts(config)
        self.may_tie = config.get("tie_word_embeddings") is not False
        changed = [name for module in adapter.modules for name in adapter.names(module)]
        self.locator = ParameterLocator(tensors, [*changed, *adapter.replaced, *adapter.beneath])
        self.patches: dict[str, list[tuple[RowRange, Patch]]] = {}
        self.claims: dict[str, list[tuple[RowRange, str]]] = {}

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
        folded = {
            name: FoldedTensor.of(self.tensors[name], patches[-1][0].width, patches)
            for name, patches in self.patches.items()
        }
        return {name: folded.get(name, tensor) for name, tensor in self.tensors.items()}

    def _beneath(self) -> None:
        """Restore the base's tables with which the adapter was trained, where the adapter holds them."""
        held: dict[str, LazyTensor] = {}
        for name, source in self.adapter.beneath.items():
            rows = self._whole(name, source, self._tied(name))
            if rows.name in held and not held[rows.name].load().equal(source.load()):
                raise self.adapter.fault(name, f"the adapter holds {rows.name} twice, and not the same.")
            held[rows.name] = source
            self._add(rows, ReplaceRows(source))

    def _replaced(self) -> None:
        """Replace tensors that the adapter holds whole: `modules_to_save`, trained biases."""
        tables: dict[str, list[LazyTensor]] = {}
        for name, source in self.adapter.replaced.items():
            tied = self._tied(name)
            rows = self._whole(name, source, tied)
            if self._tied_table == rows.name:
                tables.setdefault(rows.name, []).append(source)
            if tied is None:
                self._claim(rows, name)
                self._add(rows, ReplaceRows(source))
        for table, sources in tables.items():
            if len(sources) != 2 or not sources[0].load().equal(sources[1].load()):
                raise self.adapter.fault(
                    table,
                    "the base ties its head to the embedding, and with this adapter the two differ. Merge it with "
                    "PEFT, set tie_word_embeddings to false in the config, and give the saved model.",
                )

    def _whole(self, name: str, source: LazyTensor, tied: str | None) -> RowRange:
        """The place of a tensor that the adapter holds whole."""
        shape = source.shape or (1,)
        if tied is not None and self.tensors[tied].shape == shape:
            return RowRange(tied, shape[-1], 0, shape[0])
        places = self.locator.rows(name, shape[0], math.prod(shape[1:]))
        if len(places) != 1 or places[0].transposed:
            raise self._no_place(name, source.shape)
        return places[0]

    def _tied(self, name: str) -> str | None:
        """The embedding in the file when `name` is a head that the base ties to it."""
        return self.locator.tied_head(name) if self.may_tie else None

    @cached_property
    def _tied_table(self) -> str | None:
        """The embedding in the file when the base ties its head to it."""
        return self._tied("lm_head.weight")

    def _tokens(self, module: AdaptedModule) -> None:
        source = module.parts["trainable_tokens_delta"]
        indices = self.adapter.config.get("trainable_token_indices")
        if isinstance(indices, Mapping):
            ends = [key for key in indices if f".{module.path}".endswith(f".{key}")]
            indices = indices[ends[0]] if len(ends) == 1 else None
        name = f"{module.path}.weight"
        found = self.locator.find(name)
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
        rows = RowRange(found, source.shape[1], 0, height)
        self._claim(rows, name)
        self._add(rows, TokenRows(source, tuple(indices)))

    def _embedding(self, module: AdaptedModule) -> None:
        name = f"{module.path}.weight"
        factors = self._factors(module, "lora_embedding_A", "lora_embedding_B")
        found = self.locator.find(name)
        if found is None or self.tensors[found].shape != (factors.inputs, factors.outputs):
            raise self._no_place(name, (factors.inputs, factors.outputs))
        rows = RowRange(found, factors.outputs, 0, factors.inputs, transposed=True)
        self._add_low_rank(module, module.path, factors, [rows])

    def _linear(self, module: AdaptedModule) -> None:
        factors = self._factors(module, "lora_A", "lora_B")
        found = {name: places for name in self.adapter.names(module) if (places := self._places(name, factors))}
        if len(found) > 1:
            # Two parameters whose shapes mirror each other: PEFT takes all of a module the same way round.
            found = {name: places for name, places in found.items() if places[0].transposed == self.transposed_experts}
        if len(found) != 1:
            raise self._no_place(" or ".join(self.adapter.names(module)), (factors.outputs, factors.inputs))
        ((name, places),) = found.items()
        path = module.path if name == f"{module.path}.weight" else name
        self._add_low_rank(module, path, factors, places)
        bias = module.parts.get("lora_B.bias")
        if bias is not None:
            shifted = self.locator.rows(f"{module.path}.bias", factors.outputs, 1)
            if len(shifted) != 1:
                raise self._no_place(f"{module.path}.bias", bias.shape)
            rows, scale = shifted[0], self.adapter.scale(path, factors.rank)
            self._add(rows, AddBias(bias, scale))

    def _places(self, name: str, factors: Factors) -> list[RowRange]:
        transposed = bool(self.adapter.config.get("fan_in_fan_out"))
        square = self._square[not name.endswith(".weight")]
        places = self.locator.rows(name, factors.outputs, factors.inputs, square, transposed)
        tied = self._tied(name)
        if tied is not None and self.tensors[tied].shape == (factors.outputs, factors.inputs):
            return [RowRange(tied, factors.inputs, 0, factors.outputs)]
        return places if all(factors.down.shape[0] % rows.experts == 0 for rows in places) else []

    def _add_low_rank(self, module: AdaptedModule, path: str, factors: Factors, places: list[RowRange]) -> None:
        magnitude = module.parts.get("lora_magnitude_vector")
        if magnitude is None and self.adapter.config.get("use_dora"):
            raise self.adapter.fault(path, "lora_magnitude_vector is missing. Download the adapter again.")
        for rows in places:
            self._claim(rows, path)
            part = Factors(factors.down, factors.up, rows.expert, rows.experts)
            scale = self.adapter.scale(path, part.rank)
            self._add(rows, LowRank(part, scale, rows.transposed))
            if magnitude is not None:
                if magnitude.numel != factors.outputs or rows.experts > 1:
                    raise self.adapter.fault(path, f"{magnitude.numel} magnitudes for {factors.outputs} outputs.")
                self._add(rows, self._magnitude(rows, magnitude))

    def _magnitude(self, rows: RowRange, magnitude: LazyTensor) -> Patch:
        if not rows.transposed:
            return RowMagnitude(magnitude)
        return ColumnMagnitude(magnitude, FoldedTensor.of(self.tensors[rows.name], rows.width, self.patches[rows.name]))

    def _claim(self, rows: RowRange, owner: str) -> None:
        """Record which module changes which rows. Two for the same rows mean that one was misplaced."""
        for other, earlier in self.claims.setdefault(rows.name, []):
            if other.start < rows.stop and rows.start < other.stop:
                raise self.adapter.fault(owner, f"would change the same rows of {rows.name} as {earlier}.")
        self.claims[rows.name].append((rows, owner))

    def _add(self, rows: RowRange, patch: Patch) -> None:
        if not self.tensors[rows.name].is_float:
            name = f"{rows.name}, {self.tensors[rows.name].dtype_name}"
            raise self.adapter.fault(name, "not a plain weight that an adapter could change.")
        self.patches.setdefault(rows.name, []).append((rows, patch))

    @cached_property
    def _square(self) -> dict[bool, bool | None]:
        """Whether square tensors are stored [in, out], of weights (False) and of other parameters (True): as all others
        of the kind are; without others, as settings and model type say; None where others disagree."""
        stated = {False: bool(self.adapter.config.get("fan_in_fan_out")), True: self.transposed_experts}
        transposed: dict[bool, set[bool]] = {False: set(), True: set()}
        for module in self.adapter.modules:
            if "lora_A" in module.parts and "lora_B" in module.parts:
                factors = self._factors(module, "lora_A", "lora_B")
                for name in self.adapter.names(module) if factors.outputs != factors.inputs else ():
                    places = self.locator.rows(name, factors.outputs, factors.inputs, allow_transposed=stated[False])
                    transposed[not name.endswith(".weight")] |= {rows.transposed for rows in places}
        return {
            kind: stated[kind] if not seen else next(iter(seen)) if len(seen) == 1 else None
            for kind, seen in transposed.items()
        }

    def _factors(self, module: AdaptedModule, down: str, up: str) -> Factors:
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
        found, size = self.locator.find(name), format_shape(shape)
        if found is not None:
            return self.adapter.fault(
                name,
                f"{size}, but {found} of the base is {format_shape(self.tensors[found].shape)}. Give the base that the "
                "adapter was trained on; where it was resized, merge with PEFT (merge_and_unload) and give the saved "
                "model.",
            )
        return self.adapter.fault(
            name,
            f"no tensor of the base ({len(self.tensors)} tensors) is clearly this one ({size}). Check that the "
            "adapter was trained on this base; else merge it with PEFT (merge_and_unload), and give the saved model.",
        )


def _transposes_experts(config: Mapping[str, Any]) -> bool:
    parts = [config, *(value for value in config.values() if isinstance(value, Mapping))]
    return any(part.get("model_type") in TRANSPOSED_EXPERTS for part in parts)
