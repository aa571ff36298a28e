"""Which tensors of several checkpoints are partners: by name, by module, by content; and why the rest are not."""

from vlsurgery.surgery.alignment.alignment import Aligned, Alignment, align

__all__ = ["Aligned", "Alignment", "align"]
