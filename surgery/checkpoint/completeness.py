"""Whether a checkpoint's files hold its whole weights, as its headers tell."""

from collections.abc import Iterable, Sequence
from typing import Final

from vlsurgery.surgery.architecture.naming import TRAINING_WRAPPERS, unwrapped
from vlsurgery.surgery.checkpoint.checkpoint import Checkpoint
from vlsurgery.surgery.errors import AlignmentError, CheckpointError

# Modules of PEFT, of which the one or the other is run.
_TWICE: Final = frozenset({"modules_to_save", "original_module"})
# Parts of which torch's weight norm and pruning compute a weight.
_COMPUTED: Final = (".weight_g", ".weight_v", ".weight_orig", ".weight_mask")


def check_weights(role: str, checkpoint: Checkpoint) -> None:
    """Raise where a checkpoint's weights can't be compared or combined: AlignmentError where they are quantised,
    CheckpointError where some are missing."""
    if checkpoint.quantised:
        raise AlignmentError(
            f"{role} ({checkpoint.ref}) is quantised ({checkpoint.quantised}). "
            "Give the checkpoint that it was quantised from."
        )
    if fault := incomplete(checkpoint):
        raise CheckpointError(f"{role} ({checkpoint.ref}): {fault}")


def incomplete(checkpoint: Checkpoint) -> str | None:
    """What is missing of its weights, which tensors tell, and what to do; None where nothing is.

    Told are tensors without entries, as one process of ZeRO-3 saves them; flat parameters of FSDP; LoRA matrices beside
    the weights that they have not been merged into; and modules that PEFT keeps twice.
    """
    empty = [name for name, tensor in checkpoint.items() if tensor.is_float and 0 in tensor.shape]
    if empty:
        return (
            f"{_listed(empty)} empty (0 entries), as ZeRO-3 saves weights that it did not gather. Make whole weights "
            "of the training checkpoint with DeepSpeed's zero_to_fp32.py, or save again with "
            "stage3_gather_16bit_weights_on_model_save."
        )
    flat = [name for name in checkpoint if name.endswith("_flat_param")]
    if flat:
        return (
            f"{_listed(flat)} flattened by FSDP, so that no weight can be told. Save again with a full state dict "
            "(FULL_STATE_DICT)."
        )
    factors = [name for name in checkpoint if ".lora_A." in name or ".lora_embedding_A." in name]
    if factors and checkpoint.adapter is None:
        return (
            f"{_listed(factors)} of a LoRA adapter that is not merged into the weights. Save again after "
            "merge_and_unload, or save the adapter alone and give BASE+ADAPTER."
        )
    twice = [name for name in checkpoint if _TWICE & {*name.split(".")}]
    if twice:
        return (
            f"{_listed(twice)} of PEFT, which keeps trained modules beside the original ones. Save again after "
            "merge_and_unload."
        )
    return None


def check_plain(role: str, checkpoint: Checkpoint, names: Iterable[str]) -> None:
    """Raise CheckpointError where one of these tensors, of the language model, stands for a weight and is none: the
    weight is computed as the model runs. Vocoders and audio towers have such tensors for good."""
    computed = [name for name in names if ".parametrizations." in name or name.endswith(_COMPUTED)]
    if computed:
        raise CheckpointError(
            f"{role} ({checkpoint.ref}): {_listed(computed)} of a parametrization (weight norm, pruning), of which the "
            "weight is computed as the model runs. Save again after parametrize.remove_parametrizations, "
            "remove_weight_norm or prune.remove."
        )


def wrapper_note(checkpoint: Checkpoint) -> str | None:
    """A remark where names carry segments of training frameworks, which transformers does not know; else None."""
    wrapped = next((name for name in checkpoint if unwrapped(name) != name), None)
    if wrapped is None:
        return None
    found = ", ".join(word for word in TRAINING_WRAPPERS if word in wrapped.split("."))
    return (
        f"names carry {found}, as {wrapped} does. They are seen through here, but a merge keeps them, and transformers "
        "does not load such names: take them out, or save from the unwrapped model."
    )


def _listed(names: Sequence[str]) -> str:
    """Names as the subject of a sentence: the first three, and how many more."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more} {'is' if len(names) == 1 else 'are'}"
