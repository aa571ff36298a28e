"""GGUF files as checkpoints: dequantised as transformers does, and written as safetensors with config and tokenizer."""

from vlsurgery.probes.models.gguf.conversion import Conversion, PlannedConversion, convert, planned

__all__ = ["Conversion", "PlannedConversion", "convert", "planned"]
