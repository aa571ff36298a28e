"""The miniature specimen: a base/adapted/safety trio, its language, pictures, training and prompts."""

from vlsurgery.probes.specimens.miniature.build import DEMO_SEED, Specimen, build, specimen_of
from vlsurgery.probes.specimens.miniature.evaluation_prompts import prompts
from vlsurgery.probes.specimens.miniature.form_judge import FormJudge

__all__ = ["DEMO_SEED", "FormJudge", "Specimen", "build", "prompts", "specimen_of"]
