"""A checkpoint on disk: headers, lazy tensors, shards, the Hub, LoRA adapters, pickled and quantised weights."""

from vlsurgery.surgery.checkpoint.checkpoint import FLOATS, NUMPY_NAMES, TORCH_NAMES, Checkpoint, LazyTensor

__all__ = ["FLOATS", "NUMPY_NAMES", "TORCH_NAMES", "Checkpoint", "LazyTensor"]
