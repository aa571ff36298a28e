"""Judges made of checkpoints: text classifiers, and guard models that write their answer."""

from vlsurgery.probes.evaluation.judges.guards.opening import open_checkpoint_judge

__all__ = ["open_checkpoint_judge"]
