"""Running models: what they refuse, where refusals were lost, and which weights bring them back."""

from vlsurgery.probes.torchvision_import import mend_torchvision

mend_torchvision()
