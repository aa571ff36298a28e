"""Which of transformers' classes runs a checkpoint, and whether that takes pictures: by what classes and processors can
do, not by the words of a config."""

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from torch import nn

from vlsurgery.probes.models.processors import load_processor
from vlsurgery.surgery.errors import CheckpointError

# Auto classes, those that see first, with the table of the classes that each one knows. Old versions lack some.
SEEING: Final = {
    "AutoModelForImageTextToText": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
    "AutoModelForMultimodalLM": "MODEL_FOR_MULTIMODAL_LM_MAPPING",
}
TEXT: Final = "AutoModelForCausalLM"

# What configs call the part that makes something of pictures.
VISION_CONFIGS: Final = ("vision_config", "vq_config", "visual", "vision_tower", "mm_vision_tower", "vit_config")

# The files that describe a processor of pictures.
PROCESSOR_FILES: Final = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True)
class Route:
    """How a checkpoint is run. auto: transformers' Auto class. config: what it is given; the part that understands and
    writes text, where the whole also speaks (Qwen-Omni). sees: whether the class may take pictures. certain: whether
    transformers says so; else the config's words do, and the class and its processor are asked.
    """

    auto: Any
    config: Any
    sees: bool
    certain: bool


def route(config: Any) -> Route:
    """The class that runs a model of this config: one that sees where there is one, else a language model."""
    import transformers

    config = getattr(config, "thinker_config", config)
    own = getattr(config, "auto_map", None) or {}
    for name, table in SEEING.items():
        auto = getattr(transformers, name, None)
        known = getattr(transformers.models.auto.modeling_auto, table, None)
        if auto is not None and (name in own or (known is not None and type(config) in known)):
            return Route(auto, config, sees=True, certain=True)
    return Route(getattr(transformers, TEXT), config, sees=can_see(config), certain=False)


def can_see(config: Any) -> bool:
    """Whether a config has a part for pictures."""
    return any(getattr(config, name, None) is not None for name in VISION_CONFIGS)


def picture_processor(directory: Path, way: Route, model: nn.Module, files: Mapping[str, Any]) -> Any | None:
    """The processor of a class that takes pictures; None for one that does not, or that has nothing to make them with.

    Raises CheckpointError where a class that sees comes without a processor.
    """
    if not way.sees or not _picture_inputs(model) or (not way.certain and not _described(directory)):
        return None
    processor = load_processor(directory, **files)
    if getattr(processor, "image_processor", None) is not None:
        return processor
    if not way.certain:
        return None
    raise CheckpointError(
        f"{directory}: {type(model).__name__} takes pictures, but no processor for them lies beside it "
        f"({' or '.join(PROCESSOR_FILES)}). Take those files of the published model."
    )


def _described(directory: Path) -> list[str]:
    return [name for name in PROCESSOR_FILES if (directory / name).is_file()]


def _picture_inputs(model: nn.Module) -> list[str]:
    """The arguments of a class's forward that bring pictures."""
    return [name for name in inspect.signature(model.forward).parameters if "pixel" in name or "image" in name]


def blind(directory: Path, config: Any) -> Iterator[str]:
    """A note where a model that has a part or a processor for pictures is run without them."""
    described = _described(directory)
    if can_see(config) or described:
        reason = "its config has a part for pictures" if can_see(config) else f"it has {described[0]}"
        yield (
            f"{directory} is asked in text alone, though {reason}: transformers has no class that takes pictures for "
            f"model_type {config.model_type!r}. diff and merge work on all of it."
        )
