"""A LoRA adapter folded into its base as tensors are read."""
