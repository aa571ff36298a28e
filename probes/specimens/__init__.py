"""Trios of checkpoints that the package trains itself."""
