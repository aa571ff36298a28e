"""What a config says of its vision tower and projector beyond shapes: settings under which pictures become other
features."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from vlsurgery.surgery.alignment.text_settings import ACTIVATIONS, Setting

_FEATURES: Final = "The projector, and all behind it, were trained on other features of the vision tower."
_TOWER: Final = "The vision tower computes another function of the same weights."
_TILES: Final = "Pictures are cut into other tiles, or squeezed into fewer tokens."

# Settings of the whole model, which stand at a config's top.
WHOLE: Final[Mapping[str, Setting]] = {
    "vision_feature_layer": Setting(("vision_feature_layer", "mm_vision_select_layer", "select_layer"), _FEATURES),
    "vision_features": Setting(("vision_feature_select_strategy", "mm_vision_select_feature"), _FEATURES),
    "projector_activation": Setting(("projector_hidden_act",), "The projector computes another function."),
    "picture_tiles": Setting(("image_grid_pinpoints",), _TILES),
    "picture_merging": Setting(
        ("downsample_ratio", "scale_factor", "spatial_merge_size", "mm_tokens_per_image"), _TILES
    ),
}
# Settings of the vision tower.
TOWER: Final[Mapping[str, Setting]] = {
    "vision_activation": Setting(("hidden_act", "hidden_activation", "act_fn"), _TOWER),
    "vision_norm_eps": Setting(("layer_norm_eps", "layer_norm_epsilon", "rms_norm_eps"), _TOWER),
    "vision_heads": Setting(("num_attention_heads", "num_heads"), _TOWER),
    "vision_window": Setting(("window_size",), _TOWER),
    "vision_full_layers": Setting(("fullatt_block_indexes",), _TOWER),
    "picture_size": Setting(("image_size",), _TILES),
}
VISION_SETTINGS: Final[Mapping[str, Setting]] = {**WHOLE, **TOWER}


def vision_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Name of a setting -> its value, for what the config states; a model without a vision tower states nothing."""
    tower = config.get("vision_config")
    stated = {name: _first(config, setting.keys) for name, setting in WHOLE.items()}
    if isinstance(tower, Mapping):
        stated |= {name: _first(tower, setting.keys) for name, setting in TOWER.items()}
        stated["picture_merging"] = stated["picture_merging"] or tower.get("spatial_merge_size")
    activations = ("vision_activation", "projector_activation")
    return {
        name: ACTIVATIONS.get(value, value) if name in activations and isinstance(value, str) else _plain(value)
        for name, value in stated.items()
        if value is not None
    }


def _first(part: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((part[key] for key in keys if part.get(key) is not None), None)


def _plain(value: Any) -> Any:
    """One number for a list of equal ones, as sizes are written."""
    if isinstance(value, list) and value and all(isinstance(each, int) and each == value[0] for each in value):
        return value[0]
    return value if isinstance(value, bool | int | float | str) else str(value)[:1000]
