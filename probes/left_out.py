"""What each block of a merge brings: the merge with that block left as it was adapted, measured beside the prediction.

Coefficients are not identifiable, and blocks replace one another; so a block's worth within a merge is asked of the
models, not read off its coefficient. The prediction is that of the gradients, taken at other coefficients: where it
and the measurement part, the model is not linear that far.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from vlsurgery.probes.linearised import LinearModel
from vlsurgery.probes.objective import Floats, Purpose, Requirements, paired_objectives
from vlsurgery.probes.results import BlockEffect, Estimate
from vlsurgery.probes.trials import Bench, Proposal, Trial
from vlsurgery.surgery.runtime.progress import Progress, no_progress

MAX_BLOCKS: Final = 10  # each takes a pass over the `select` prompts


def left_out(
    bench: Bench, merged: Trial, blocks: Sequence[str], model: LinearModel, progress: Progress = no_progress
) -> list[BlockEffect]:
    """The effect of each of the blocks that are predicted to bring most, at most MAX_BLOCKS, from most to least.

    merged: the merge that is explained. blocks: to choose from. model: the linear model that its coefficients were
    solved in. The live model is restored.
    """
    predicted = {block: _predicted(bench, merged, block, model) for block in blocks}
    most = sorted(predicted, key=lambda block: -predicted[block])[:MAX_BLOCKS]
    nothing = dict.fromkeys(bench.live.sources, 0.0)
    without = [Proposal("linearised", {}, {**merged.table, block: nothing}) for block in most]
    trials = bench.each(without, "leaving one block out", progress)
    found = [
        effect(bench.select.wanted, block, predicted[block], merged.z, trial.z)
        for block, trial in zip(most, trials, strict=True)
    ]
    return sorted(found, key=lambda each: -(each.gain.value or 0.0))


def effect(wanted: Requirements, block: str, predicted: float, merged: Floats, without: Floats) -> BlockEffect:
    """What a block brings. merged, without: [n] log-odds of the merge, and of the merge without the block."""
    return BlockEffect(
        block=block,
        predicted=predicted,
        gain=_difference(wanted, merged, without),
        refusal=_difference(_alone(wanted, "refuse"), merged, without),
        answers=_difference(_alone(wanted, "answer"), merged, without),
        sight=_difference(_alone(wanted, "keep"), merged, without),
    )


def _predicted(bench: Bench, merged: Trial, block: str, model: LinearModel) -> float:
    whole = bench.live.tensor(merged.table).double().numpy().ravel()
    without = np.where(model.block == bench.live.blocks.index(block), 0.0, whole)
    return model.objective(without) - model.objective(whole)


def _alone(wanted: Requirements, purpose: Purpose) -> Requirements:
    """Only what one purpose asks for, at the price of 1."""
    return replace(wanted, prices={purpose: 1.0})


def _difference(wanted: Requirements, merged: Floats, without: Floats) -> Estimate:
    asked = {r for r, purpose in zip(wanted.requests, wanted.purposes, strict=True) if purpose in wanted.prices}
    if not asked:
        return Estimate(value=None, reason="no prompt asks for it")
    gain = paired_objectives(wanted, merged, without)
    return Estimate(value=gain.value, low=gain.low, high=gain.high, n=len(asked))
