"""Detection of quantised weights by config, names and dtypes."""

from collections.abc import Mapping
from typing import Any, Final

# Ending of a quantiser's auxiliary tensors -> its scheme.
ENDINGS: Final = {
    ".weight.absmax": "bitsandbytes", ".quant_map": "bitsandbytes", ".SCB": "bitsandbytes",
    ".weight_format": "bitsandbytes", ".weight_scale_inv": "fp8", ".activation_scale": "fp8",
    ".weight_packed": "compressed-tensors", ".weight_scale": "compressed-tensors",
    ".weight_shape": "compressed-tensors", ".qweight": "gptq or awq", ".qzeros": "gptq or awq",
}  # fmt: skip

# Part of a name that occurs in bitsandbytes alone.
INFIX: Final = ".quant_state.bitsandbytes__"

# Dtypes of quantised weights alone.
CODES: Final = frozenset(
    {"F4", "F6_E2M3", "F6_E3M2", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
)

# Dtypes of tensors that may be quantised under any name; others are only by an ending of ENDINGS.
DOUBTFUL: Final = CODES | {"U8", "I32"}
_ENDINGS: Final = tuple(ENDINGS)


def quantisation(safetensors_dtypes: Mapping[str, str], config: Mapping[str, Any]) -> str | None:
    """The quantisation scheme of a checkpoint, or None for plain weights.

    safetensors_dtypes: by tensor name. config: config.json; sub-configs are searched too.
    """
    for part in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        settings = part.get("quantization_config")
        if settings:
            method = settings.get("quant_method") if isinstance(settings, Mapping) else None
            return str(method or "quantization_config present")
    suspects = (
        (name, safetensors_dtype)
        for name, safetensors_dtype in safetensors_dtypes.items()
        if safetensors_dtype in DOUBTFUL or name.endswith(_ENDINGS) or INFIX in name
    )
    return next((scheme for name, safetensors_dtype in suspects if (scheme := _scheme(name, safetensors_dtype))), None)


def _scheme(name: str, safetensors_dtype: str) -> str | None:
    """The scheme of one tensor by its name and dtype, or None."""
    if INFIX in name:
        return "bitsandbytes"
    for ending, scheme in ENDINGS.items():
        if name.endswith(ending):
            return scheme
    if safetensors_dtype == "U8" and name.endswith(("_blocks", "_scales")):
        return "mxfp4"
    if safetensors_dtype in CODES or (safetensors_dtype in ("U8", "I32") and name.endswith(".weight")):
        return f"unknown scheme: {name} is {safetensors_dtype}"
    return None
