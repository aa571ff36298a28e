"""Prompt sets: what models are asked, where it comes from, and how it is split."""

from vlsurgery.probes.prompts.album import Album, album_of, with_ordinary_pictures
from vlsurgery.probes.prompts.english import english_prompts
from vlsurgery.probes.prompts.loaders import PromptFiles, load_prompt_files, load_prompts, split_spec, without_repeats
from vlsurgery.probes.prompts.picture_files import rgb
from vlsurgery.probes.prompts.prompt import SETS, Modality, Prompt, PromptSet
from vlsurgery.probes.prompts.records import file_digest, prompts_as_records, prompts_digest
from vlsurgery.probes.prompts.splits import Split
from vlsurgery.probes.results import HARMFUL_SETS

__all__ = [
    "HARMFUL_SETS",
    "SETS",
    "Album",
    "Modality",
    "Prompt",
    "PromptFiles",
    "PromptSet",
    "Split",
    "album_of",
    "english_prompts",
    "file_digest",
    "load_prompt_files",
    "load_prompts",
    "prompts_as_records",
    "prompts_digest",
    "rgb",
    "split_spec",
    "with_ordinary_pictures",
    "without_repeats",
]
