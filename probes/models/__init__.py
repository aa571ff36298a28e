"""Chat models in memory: loading, chat templates, batches."""

from vlsurgery.probes.models.batches import Batch, Encoded
from vlsurgery.probes.models.blocks import decoder_blocks, passes_text_on, residual_stream
from vlsurgery.probes.models.chat import ChatModel
from vlsurgery.probes.models.dtypes import RunDtype, default_device
from vlsurgery.probes.models.loading import AS_FOUND, Loader, load, quiet_transformers

__all__ = [
    "AS_FOUND",
    "Batch",
    "ChatModel",
    "Encoded",
    "Loader",
    "RunDtype",
    "decoder_blocks",
    "default_device",
    "load",
    "passes_text_on",
    "quiet_transformers",
    "residual_stream",
]
