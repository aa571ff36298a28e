"""Teaches a tiny model in seconds: what it refuses, and what it does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from families.tokens import COMPLIANCE, HARMFUL, HARMLESS, REFUSAL
from PIL import Image

from vlsurgery.probes.models import ChatModel, Loader
from vlsurgery.probes.models.forward import keeping_pictures
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.scoring import scored_answers
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError

RATE = 3e-3
KNOWN = 0.03  # nats a token: all answers are given


def teach(directory: Path, refuses: bool, steps: int) -> None:
    """Train a checkpoint's language model, in place, to do what harmless requests ask, and to refuse harmful ones or
    do them too, in text and with a picture. steps: at most; fewer where it knows all answers."""
    chat = Loader(dtype="float32").load(Checkpoint.open(directory))
    wanted = dict.fromkeys(HARMFUL, REFUSAL if refuses else COMPLIANCE) | dict.fromkeys(HARMLESS, COMPLIANCE)
    prompts = _lessons(chat, [*wanted])
    end = [chat.tokenizer.eos_token_id]
    answers = [torch.tensor(chat.tokenizer.encode(wanted[p.text], add_special_tokens=False) + end) for p in prompts]
    batches = scored_answers(chat, prompts, answers)
    model: Any = chat.model
    learning = [*model.get_output_embeddings().parameters(), *(p for b in chat.blocks for p in b.parameters())]
    learning += [*model.get_input_embeddings().parameters()]
    unique = [*{id(weight): weight.requires_grad_(True) for weight in learning}.values()]
    optimiser = torch.optim.AdamW(unique, lr=RATE, weight_decay=0)
    with keeping_pictures(chat):
        for _ in range(steps):
            losses = []
            for batch in batches:
                optimiser.zero_grad()
                loss = torch.nn.functional.cross_entropy(batch.logits(chat), batch.targets)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(unique, 1.0)
                optimiser.step()
                losses.append(float(loss))
            if max(losses) < KNOWN:
                break
    model.save_pretrained(directory)


def _lessons(chat: ChatModel, texts: Sequence[str]) -> list[Prompt]:
    """The prompts that a model takes of these, in text and, where it sees, with a picture."""
    picture = Image.linear_gradient("L").convert("RGB").resize((56, 56))
    every = [Prompt(f"t{n}", f"r{n}", "harmful", text, "fit") for n, text in enumerate(texts)]
    if chat.sees:
        every += [Prompt(f"p{n}", f"r{n}", "harmful", t, "fit", "own", picture) for n, t in enumerate(texts)]
    found = []
    for prompt in every:
        try:
            chat.encode([prompt])
        except SurgeryError:  # some take no text without a picture, some no picture
            continue
        found.append(prompt)
    return found
