"""Which tensors of several checkpoints are partners: by name, by module, by content; and why the rest are not."""
