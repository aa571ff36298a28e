"""Prompt sets: what models are asked, where it comes from, and how it is split."""

from vlsurgery.probes.prompts.english import english_prompts
from vlsurgery.probes.prompts.loaders import load_prompts, without_repeats
from vlsurgery.probes.prompts.prompt import SETS, Modality, Prompt, PromptSet
from vlsurgery.probes.prompts.records import prompts_as_records, prompts_digest
from vlsurgery.probes.prompts.splits import Split
from vlsurgery.probes.results import HARMFUL_SETS

__all__ = [
    "HARMFUL_SETS",
    "SETS",
    "Modality",
    "Prompt",
    "PromptSet",
    "Split",
    "english_prompts",
    "load_prompts",
    "prompts_as_records",
    "prompts_digest",
    "without_repeats",
]
