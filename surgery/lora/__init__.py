"""LoRA adapters, folded into a base's tensors as they are read."""
