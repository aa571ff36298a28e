"""A LoRA adapter on disk, as PEFT writes it: what it changes, by the names of the live model."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from vlsurgery.surgery.checkpoint.headers import Header, read_header
from vlsurgery.surgery.checkpoint.identity import WeightFile, identity_of
from vlsurgery.surgery.checkpoint.lazy_tensor import LazyTensor
from vlsurgery.surgery.checkpoint.lora.trained_parts import (
    ADAPTER_CONFIG as CONFIG,
    part_names,
    read_part,
    unread_parts,
)
from vlsurgery.surgery.checkpoint.shards import read_json
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.excerpts import excerpt
from vlsurgery.surgery.runtime.patterns import check_pattern, fits
from vlsurgery.surgery.runtime.visible import visible

WEIGHTS: Final = "adapter_model.safetensors"
PREFIX: Final = "base_model.model."
SHOWN_PARTS: Final = 4

# Settings under which an adapter is more than W + s B A, or was trained on weights that are not the base's.
OTHER_METHODS: Final = (
    "use_qalora", "use_bdlora", "kasa_config", "arrow_config", "monteclora_config", "velora_config",
    "alora_invocation_tokens", "layer_replication", "megatron_config",
)  # fmt: skip
OTHER_BASES: Final = ("pissa", "olora", "corda", "loftq", "lora_ga", "mica")

_KEY: Final = re.compile(
    r"(?P<module>.+?)\.(?P<part>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector"
    r"|token_adapter\.trainable_tokens_delta)(\.default)?(\.(?P<leaf>weight|bias))?"
)
_WRAPPED: Final = re.compile(r"\.(base_layer|modules_to_save(\.default)?)(?=\.[^.]+$)")


@dataclass(frozen=True)
class AdaptedModule:
    """What an adapter holds for one module of the live model.

    path: its name. parts: "lora_A", "lora_B", "lora_B.bias", ... -> tensor. depth: how many wrappers of other
    parameters are around it, where several parameters of one module are adapted.
    """

    path: str
    depth: int
    parts: dict[str, LazyTensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter.

    config: its settings. modules: those that it changes. replaced: name -> tensor that replaces the base's.
    beneath: name -> the base's tensor as it was in training (PEFT saves embeddings beside what changes them).
    header: of its weight file. settings_digest: the SHA-256 of the file of its settings. parts: file -> header of
    weights that were trained beside it; their tensors are among those that are replaced.
    """

    path: Path
    config: dict[str, Any]
    modules: tuple[AdaptedModule, ...]
    replaced: dict[str, LazyTensor]
    beneath: dict[str, LazyTensor]
    header: Header
    settings_digest: str
    parts: dict[str, Header] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, allow_pickle: bool = False) -> "Adapter":
        """Read settings and headers of an adapter's directory.

        allow_pickle: take pickled weights that were trained beside the adapter; they are loaded as weights only.

        Raises CheckpointError that names the file and the next step: not an adapter, pickled, of another kind.
        """
        config = read_json(path / CONFIG)
        _check_kind(path, config)
        _check_settings(path, config)
        if not (path / WEIGHTS).is_file():
            pickled = (path / "adapter_model.bin").exists()
            raise CheckpointError(
                f"{path}: holds only a pickled adapter (adapter_model.bin), which can run code when it is loaded. "
                "Load it with PEFT and save it again."
                if pickled
                else f"{path}: no {WEIGHTS} beside {CONFIG}. Download the adapter again."
            )
        header = read_header(path / WEIGHTS)
        modules: dict[tuple[str, int], AdaptedModule] = {}
        replaced: dict[str, LazyTensor] = {}
        beneath: dict[str, LazyTensor] = {}
        for entry in header.entries:
            tensor = LazyTensor(entry, path / WEIGHTS)
            name = entry.name.removeprefix(PREFIX)
            key = _KEY.fullmatch(name)
            if key is None:
                (beneath if ".base_layer." in name else replaced)[_WRAPPED.sub("", name)] = tensor
                continue
            module, depth = _unwrapped(key["module"])
            parts = modules.setdefault((module, depth), AdaptedModule(module, depth)).parts
            parts[key["part"].removeprefix("token_adapter.") + (".bias" if key["leaf"] == "bias" else "")] = tensor
        settings = hashlib.sha256((path / CONFIG).read_bytes()).hexdigest()
        headers: dict[str, Header] = {}
        for file in part_names(path):
            headers[file], tensors = read_part(path / file, allow_pickle)
            _add_trained(path / file, tensors, replaced)
        return cls(path, config, tuple(modules.values()), replaced, beneath, header, settings, headers)

    @property
    def notes(self) -> tuple[str, ...]:
        """A remark on weights beside it that are not used."""
        unread = unread_parts(self.path)
        if not unread:
            return ()
        more = f" and {len(unread) - SHOWN_PARTS} more" if len(unread) > SHOWN_PARTS else ""
        return (
            f"{self.path}: beside the adapter, and not used: {', '.join(unread[:SHOWN_PARTS])}{more}. Used is "
            "what lies in that directory itself as safetensors, or with --allow-pickle as .bin, and is a part of the "
            "model, as a value head is not.",
        )

    @property
    def pickled(self) -> bool:
        """Whether weights that were trained beside it are pickled, and were allowed to be."""
        return any(not file.endswith(".safetensors") for file in self.parts)

    @cached_property
    def identity(self) -> str:
        """ "sha256:..." over weights and settings, as `Checkpoint.identity` has it: equal for copies."""
        parts = [
            WeightFile(file, self.path / file, header, file.endswith(".safetensors"))
            for file, header in self.parts.items()
        ]
        return identity_of([WeightFile(WEIGHTS, self.path / WEIGHTS, self.header), *parts], [self.settings_digest])

    @property
    def stamp(self) -> str:
        """What changes whenever the adapter is written again, and with every copy."""
        headers = (self.header, *self.parts.values())
        stamps = (f"{header.size}:{header.mtime_ns}:{header.digest}" for header in headers)
        return ":".join((*stamps, self.settings_digest))

    @property
    def files(self) -> tuple[Path, ...]:
        """Weights and settings."""
        return tuple(self.path / file for file in (WEIGHTS, *self.parts, CONFIG))

    def names(self, module: AdaptedModule) -> list[str]:
        """The live parameters that a module's factors may belong to: its weight, and those that the settings target in
        it. Keys do not tell them apart; shapes do."""
        targets = set(self.config.get("target_parameters") or ())
        names = {f"{module.path}.{target.rpartition('.')[2]}" for target in targets}
        fitting = {name for name in names if any(f".{name}".endswith(f".{target}") for target in targets)}
        return sorted(fitting | {f"{module.path}.weight"})

    def fault(self, module: str, what: str) -> CheckpointError:
        """An error about a module or tensor, which names the file that holds it."""
        held = self.replaced.get(module)
        return CheckpointError(f"{self.path / WEIGHTS if held is None else held.shard}: {module}: {what}")

    def scale(self, path: str, rank: int) -> float:
        """The scale s of a module or parameter: alpha / r, or alpha / sqrt(r) in rsLoRA. alpha is that of the first
        pattern that fits, else the general one."""
        patterns: dict[str, float] = self.config.get("alpha_pattern") or {}
        fitting = (value for pattern, value in patterns.items() if fits(pattern, path))
        alpha = next(fitting, self.config["lora_alpha"])
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def _add_trained(file: Path, tensors: Mapping[str, LazyTensor], replaced: dict[str, LazyTensor]) -> None:
    """Put the tensors of a file of trained weights among those that replace the base's, by the live model's names."""
    for name, tensor in tensors.items():
        live = _WRAPPED.sub("", name.removeprefix(PREFIX))
        if _KEY.fullmatch(live):
            raise CheckpointError(
                f"{file}: {name}: a low-rank factor, beside those of {WEIGHTS}. Keep the file that belongs to it."
            )
        if live in replaced:
            raise CheckpointError(f"{file}: {name}: is also in {replaced[live].shard.name}. Keep one of them.")
        replaced[live] = tensor


def _check_kind(path: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(
            f"{path / CONFIG}: peft_type is {excerpt(kind)}; only LORA can be folded. Merge it with PEFT "
            "(merge_and_unload) and give the saved model."
        )
    other = next((setting for setting in OTHER_METHODS if config.get(setting)), None)
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(OTHER_BASES):
        other = f"init_lora_weights: {visible(init):.80}"
    if other is not None:
        raise CheckpointError(
            f"{path / CONFIG}: {other} changes more than W + s B A. Merge the adapter with PEFT (merge_and_unload) and "
            "give the saved model."
        )


def _check_settings(path: Path, config: Mapping[str, Any]) -> None:
    """The settings that folding reads must be what PEFT writes."""
    patterns, targets = config.get("alpha_pattern") or {}, config.get("target_parameters") or []
    if not _is_number(config.get("lora_alpha")):
        raise _unlike(path, "lora_alpha", "a number", config.get("lora_alpha"))
    if not isinstance(patterns, dict) or not all(map(_is_number, patterns.values())):
        raise _unlike(path, "alpha_pattern", "numbers by pattern", patterns)
    for where, alpha in (
        ("lora_alpha", config["lora_alpha"]),
        *((f"alpha_pattern.{key}", patterns[key]) for key in patterns),
    ):
        if alpha < 0:
            raise CheckpointError(
                f"{path / CONFIG}: {visible(where):.80}: 0 or more was expected, found {alpha}. A negative scale takes "
                "out of the base what the adapter learnt; it is not folded. Give the adapter as it was trained."
            )
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except ValueError as error:
            raise _unlike(path, "alpha_pattern", f"a regular expression ({error})", pattern) from error
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise _unlike(path, "target_parameters", "a list of names", targets)


def _unlike(path: Path, setting: str, expected: str, found: object) -> CheckpointError:
    return CheckpointError(
        f"{path / CONFIG}: {setting}: {expected} was expected, found {excerpt(found)}. Download the adapter again."
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12


def _unwrapped(module: str) -> tuple[str, int]:
    """A module's own path, and how many wrappers of other parameters its key went through."""
    depth = 0
    while module.endswith(".base_layer"):
        module, depth = module.removesuffix(".base_layer"), depth + 1
    return module, depth
