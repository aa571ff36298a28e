"""Gradients of prompts that a case keeps, so that a run that was cut short or asks another price takes them again."""

from pathlib import Path
from typing import Final

import numpy as np
import torch

from vlsurgery.probes.gradients import PromptGradients, prompt_gradients
from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.merge_workers import MergeWorkers
from vlsurgery.probes.objective_scorer import ObjectiveScorer
from vlsurgery.probes.trials import Table
from vlsurgery.probes.trust_region import TakeGradients
from vlsurgery.surgery.runtime.progress import Progress

# Nats by which a prompt's log-odds may differ from those that were kept with its gradient: of other weights, prompts or
# targets they differ more, and in another batch of bfloat16 less.
SAME: Final = 0.1


def reused_gradients(
    live: InMemoryMerge,
    scorer: ObjectiveScorer,
    file: Path | None,
    progress: Progress,
    workers: MergeWorkers | None = None,
) -> TakeGradients:
    """A function that gives the gradients of the scorer's prompts at a merge: those in the file where they are of it,
    else computed, by workers where there are any. The first ones that are computed are kept in the file. None: nothing
    is kept."""
    kept = PromptGradients.load(file) if file is not None and file.exists() else None
    is_first = True

    def take(coefficients: Table) -> PromptGradients:
        nonlocal is_first
        if kept is not None and _fits(kept, live, scorer, coefficients):
            found = kept
        else:
            batches, prompts = scorer.batches, scorer.wanted.prompts
            if workers is None:
                found = prompt_gradients(live, coefficients, batches, prompts, progress)
            else:
                found = workers.gradients(coefficients, len(batches), prompts, progress)
            if is_first and file is not None:
                found.save(file)
        is_first = False
        return found

    return take


def _fits(kept: PromptGradients, live: InMemoryMerge, scorer: ObjectiveScorer, coefficients: Table) -> bool:
    """Whether kept gradients are of this merge: the same prompts, blocks and place, and the model there says the same.

    One forward pass of every prompt tells that neither weights nor targets changed.
    """
    names = (kept.prompts, kept.blocks, kept.sources)
    if names != (scorer.wanted.prompts, live.blocks, live.sources):
        return False
    if not torch.allclose(kept.at, live.tensor(coefficients), rtol=0, atol=1e-6):
        return False
    with live.at(coefficients) as chat:
        found = scorer.measure(chat).z
    return bool(np.abs(found - kept.z.numpy()).max() <= SAME)
