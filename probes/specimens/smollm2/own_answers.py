"""The source's own answers to harmless requests: what training is to leave as it was."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, LlamaForCausalLM

from vlsurgery.probes.evaluation.judges import STANDARD, Exchange, is_right
from vlsurgery.probes.specimens.smollm2 import chat
from vlsurgery.probes.specimens.smollm2.corpus import OwnAnswer
from vlsurgery.surgery.runtime.progress import Progress

ROWS = 64  # requests in a batch


@torch.no_grad()
def own_answers(
    model: LlamaForCausalLM, words: Any, requests: Sequence[str], tokens: int, progress: Progress
) -> dict[str, OwnAnswer]:
    """The greedy answer to each request, of at most so many tokens."""
    end, side = words.convert_tokens_to_ids("<|im_end|>"), words.padding_side
    settings = GenerationConfig(max_new_tokens=tokens, eos_token_id=end, pad_token_id=words.pad_token_id)
    order = sorted(set(requests), key=len)
    found: dict[str, OwnAnswer] = {}
    words.padding_side = "left"
    for start in progress(range(0, len(order), ROWS), "own answers"):
        part = order[start : start + ROWS]
        inputs = words([chat.asked(text, pictured=False) for text in part], return_tensors="pt", padding=True)
        inputs = inputs.to(model.device)
        out = model.generate(**inputs, generation_config=settings)[:, inputs["input_ids"].shape[1] :]
        for text, row in zip(part, out.tolist(), strict=True):
            found[text] = OwnAnswer(words.decode(row, skip_special_tokens=True).strip(), end in row)
    words.padding_side = side
    return found


def helpful(answers: Mapping[str, OwnAnswer]) -> dict[str, OwnAnswer]:
    """The answers that are no refusals: a raw model refuses at times, and is not to learn that of harmless requests."""
    verdicts = STANDARD.judge(
        [Exchange(own.text, text, "harmless", cut=not own.ended) for text, own in answers.items()]
    )
    return {text: own for (text, own), verdict in zip(answers.items(), verdicts, strict=True) if not verdict.refused}


def right(answers: Mapping[str, OwnAnswer], questions: Sequence[tuple[str, str]]) -> dict[str, OwnAnswer]:
    """The answers to questions that are right, in the model's own words.

    The right answers of others are not taught: a model that learns them as single words guesses at what it does not
    know, and forgets how it said what it knows (of the evaluation's questions 7 of 30 right before, 4 after).
    """
    return {text: answers[text] for text, answer in questions if is_right(answers[text].text, answer)}


def write(path: Path, answers: Mapping[str, OwnAnswer]) -> None:
    path.write_text(json.dumps({text: [own.text, own.ended] for text, own in answers.items()}, indent=0) + "\n")


def read(path: Path) -> dict[str, OwnAnswer]:
    return {text: OwnAnswer(said, ended) for text, (said, ended) in json.loads(path.read_text()).items()}
