"""Detection of quantised weights by config, names and dtypes."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

# Ending of a quantiser's auxiliary tensors -> its scheme.
ENDINGS: Final = {
    ".weight.absmax": "bitsandbytes", ".quant_map": "bitsandbytes", ".SCB": "bitsandbytes",
    ".weight_format": "bitsandbytes", ".weight_scale_inv": "fp8", ".activation_scale": "fp8",
    ".weight_packed": "compressed-tensors", ".weight_scale": "compressed-tensors",
    ".weight_shape": "compressed-tensors", ".qweight": "gptq or awq", ".qzeros": "gptq or awq", ".g_idx": "gptq",
    ".W_q": "hqq", ".Qidxs": "quip", ".q_weight": "exl2", ".q_invperm": "exl2", ".weight._data": "quanto",
    ".weight._scale": "quanto", "_qdata": "torchao", ".weight_scale_2": "modelopt", ".qscale_weight": "fp8",
    ".weight_scales": "eetq", ".dense_weights": "spqr",
}  # fmt: skip
# The same for endings that floating-point tensors of plain models have too, such as the codebooks of an audio tower.
INTEGER_ENDINGS: Final = {".codes": "aqlm", ".trellis": "exl3", ".indices": "vptq", ".B": "marlin"}

# Part of a name that occurs in bitsandbytes alone.
INFIX: Final = ".quant_state.bitsandbytes__"

# Dtypes of quantised weights alone.
CODES: Final = frozenset(
    {"F4", "F6_E2M3", "F6_E3M2", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"}
)
INTEGERS: Final = frozenset({"U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})
# Integers in which indices are stored, never codes.
LONG: Final = frozenset({"U64", "I64"})

# Dtypes of tensors that may be quantised under any name; others are only by an ending of ENDINGS.
DOUBTFUL: Final = CODES | INTEGERS
_ENDINGS: Final = tuple(ENDINGS)

# Last word of a tensor that turns a module's codes back into weights.
_DECODER: Final = re.compile(r"scale|zero|absmax|codebook|quant|^biases$")

# A module that multiplies by a weight and has no other integers; and integers that count or point, in any module.
_MULTIPLIER: Final = re.compile(r"(?:^|[._])(?:proj|qkv|dense|fc\d*|linear\w*|experts|lm_head)$")
_COUNTER: Final = re.compile(r"index|indices|ids|position|batches|step", re.IGNORECASE)

# Levels of sub-configs that are searched.
MAX_DEPTH: Final = 4


def quantisation(safetensors_dtypes: Mapping[str, str], config: Mapping[str, Any]) -> str | None:
    """The quantisation scheme of a checkpoint, or None for plain weights.

    safetensors_dtypes: by tensor name. config: config.json; sub-configs are searched too.
    """
    for part in _parts(config):
        for key in ("quantization_config", "compression_config", "quantization"):
            settings = part.get(key)
            if isinstance(settings, Mapping) and settings:
                return str(settings.get("quant_method") or ("mlx" if key == "quantization" else f"{key} present"))
            if settings and key == "quantization_config":
                return f"{key} present"
    suspects = [
        (name, safetensors_dtype)
        for name, safetensors_dtype in safetensors_dtypes.items()
        if safetensors_dtype in DOUBTFUL or name.endswith(_ENDINGS) or INFIX in name
    ]
    if not suspects:
        return None
    places = (name.rpartition(".") for name in safetensors_dtypes)
    decoded = {module for module, _, leaf in places if _DECODER.search(leaf)}
    return next((scheme for suspect in suspects if (scheme := _scheme(*suspect, decoded))), None)


def _parts(config: Mapping[str, Any], depth: int = MAX_DEPTH) -> Iterator[Mapping[str, Any]]:
    """Yield a config and its sub-configs."""
    yield config
    for value in config.values() if depth else ():
        if isinstance(value, Mapping):
            yield from _parts(value, depth - 1)


def _scheme(name: str, safetensors_dtype: str, decoded: Collection[str]) -> str | None:
    """The scheme of one tensor by its name and dtype, or None. decoded: modules that hold scales, zero points or the
    like, which turn integers beside them into weights."""
    if INFIX in name:
        return "bitsandbytes"
    for ending, scheme in ENDINGS.items():
        if name.endswith(ending):
            return scheme
    if safetensors_dtype == "U8" and name.endswith(("_blocks", "_scales")):
        return "mxfp4"
    module, _, leaf = name.rpartition(".")
    if safetensors_dtype in INTEGERS:
        for ending, scheme in INTEGER_ENDINGS.items():
            if name.endswith(ending):
                return scheme
        if safetensors_dtype == "U32" and leaf == "weight" and module in decoded:
            return "mlx"
    coded = (
        safetensors_dtype in INTEGERS
        and not _COUNTER.search(leaf)
        and (
            leaf == "weight"
            or (module in decoded and safetensors_dtype not in LONG)
            or _MULTIPLIER.search(module) is not None
        )
    )
    return f"unknown scheme: {name} is {safetensors_dtype}" if coded or safetensors_dtype in CODES else None
