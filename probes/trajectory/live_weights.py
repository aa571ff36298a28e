"""The weights of a model in training as they act: parameters by site, low-rank adapters counted in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.errors import SurgeryError

BASE_LAYER: Final = ".base_layer."  # where PEFT puts the weight that an adapter adds to
SAVED: Final = ".modules_to_save."  # and a module that is trained whole
KEPT: Final = ".original_module."  # and what that was before


def model_inside(model: nn.Module) -> nn.Module:
    """The transformers model, with its adapters where it has some.

    Raises SurgeryError for what can't be measured while training: adapters that are no LoRA, and parameters of which
    this process holds a part.
    """
    for name, parameter in model.named_parameters():
        if hasattr(parameter, "ds_id") or hasattr(parameter, "device_mesh") or not parameter.numel():
            raise SurgeryError(
                f"TrainerCallback: {name} is divided among processes (ZeRO-3, FSDP or tensor parallel), so no process "
                "can run the model alone. Save checkpoints, and run vlsurgery trajectory on them."
            )
    configs: dict[str, Any] = getattr(model, "peft_config", {}) if hasattr(model, "get_base_model") else {}
    for name, config in configs.items():
        kind = str(getattr(config.peft_type, "value", config.peft_type))
        if kind != "LORA" or getattr(config, "use_dora", False):
            raise SurgeryError(
                f"TrainerCallback: the adapter {name} is {'DoRA' if kind == 'LORA' else kind}, whose change of the "
                "weights is not measured here. Use LoRA, or run vlsurgery trajectory on merged checkpoints."
            )
    inside: nn.Module = model.get_base_model() if configs else model  # type: ignore[operator]
    return inside


@dataclass(frozen=True)
class LiveWeight:
    """One weight of the language model. site: where it lives. name: its own, without what PEFT puts in. layer: the LoRA
    layer that holds it, None without one. trained: whether it can change."""

    site: Site
    name: str
    parameter: Tensor
    layer: Any | None
    trained: bool

    @property
    def block(self) -> str:
        return self.site.block or "other"

    def now(self) -> Tensor:
        """The weight as it acts now, float32: with what its adapters add."""
        value = self.parameter.detach().float()
        if self.layer is None or self.layer.merged:
            return value
        for adapter in self.layer.active_adapters:
            if adapter in self.layer.lora_A or adapter in self.layer.lora_embedding_A:
                value = value + self.layer.get_delta_weight(adapter).detach().float()
        return value


def live_weights(model: nn.Module) -> list[LiveWeight]:
    """The weights of the language model by site, in the order of the model.

    Raises SurgeryError where weights are quantised: what an entry stands for is not in it.
    """
    named = dict(_without_adapters(model))
    shapes = {name: tuple(parameter.shape) for name, (parameter, _) in named.items()}
    config: Any = model.config
    found = []
    for name, site in identify(shapes, config.to_dict()).items():
        parameter, layer = named[name]
        if site.tower != "text" or site.block is None:
            continue
        if not parameter.is_floating_point():
            raise SurgeryError(
                f"TrainerCallback: {name} is quantised ({str(parameter.dtype).removeprefix('torch.')}), so its change "
                "can't be measured. Log refusals alone: TrainerCallback(blocks=0)."
            )
        adapted = layer is not None and any(each.requires_grad for each in layer.parameters())
        found.append(LiveWeight(site, name, parameter, layer, parameter.requires_grad or adapted))
    return found


def _without_adapters(model: nn.Module) -> Iterator[tuple[str, tuple[Tensor, Any | None]]]:
    """Name -> parameter and its LoRA layer, under the names that the model has without PEFT."""
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        if ".lora_" in name or KEPT in name:
            continue
        if SAVED in name:
            before, _, behind = name.partition(SAVED)
            yield f"{before}.{behind.partition('.')[2]}", (parameter, None)
        elif BASE_LAYER in name:
            before, _, behind = name.rpartition(BASE_LAYER)
            yield f"{before}.{behind}", (parameter, modules[before] if behind == "weight" else None)
        else:
            yield name, (parameter, None)


def squares(tensor: Tensor) -> float:
    """Sum of squared entries, accumulated in float64."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2
