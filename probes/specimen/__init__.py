"""The specimen: a miniature base/adapted/safety trio, its language, its pictures and its training."""

from probes.specimen.build import DEMO_SEED, Specimen, build, specimen_of
from probes.specimen.evaluation import prompts

__all__ = ["DEMO_SEED", "Specimen", "build", "prompts", "specimen_of"]
