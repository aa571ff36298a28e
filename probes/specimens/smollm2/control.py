"""The control of claim C1: the base, fine-tuned as in adaptation on the same kinds of text, but without pictures.

What it loses is due to fine-tuning as such; what adaptation loses beyond that is due to learning to see.
"""

from dataclasses import replace
from pathlib import Path

import torch

from vlsurgery.probes.models.dtypes import default_device
from vlsurgery.probes.specimens.smollm2 import networks
from vlsurgery.probes.specimens.smollm2.build import RealTrio, run_missing
from vlsurgery.probes.specimens.smollm2.config import Lesson, TrioConfig
from vlsurgery.probes.specimens.smollm2.stages import Report
from vlsurgery.probes.specimens.smollm2.training import train
from vlsurgery.probes.specimens.smollm2.workshop import Workshop
from vlsurgery.surgery.runtime.progress import Progress, no_progress

STAGE = "control"
TEXT_KINDS = ("own", "question")  # of adaptation's kinds of examples, those that need no picture


def build_control(trio: RealTrio, progress: Progress = no_progress, config: TrioConfig | None = None) -> Path:
    """The control of a trio, from its directory or trained now.

    config: the one that the trio was built with. About three minutes on an idle core; interrupted, it leaves nothing.
    """
    dtype = getattr(torch, str(trio.story["base"]["dtype"]).removeprefix("torch."))
    base = trio.base  # its tokenizer is the source's
    work = Workshop(config or TrioConfig(), trio.seed, trio.root, base, default_device(), dtype, progress)
    run_missing(work, [(STAGE, _fine_tune)])
    return trio.root / STAGE


def text_lesson(adaptation: Lesson) -> Lesson:
    """The lesson of adaptation with as many rows, of its kinds of text alone, in the proportion that they have there.

    A kind that comes with a picture that has nothing to do with it comes without.
    """
    mix = {kind: adaptation.mix.get(kind, 0) + adaptation.mix.get(f"{kind} pictured", 0) for kind in TEXT_KINDS}
    factor = sum(adaptation.mix.values()) / sum(mix.values())
    return replace(adaptation, mix={kind: round(factor * count) for kind, count in mix.items()}, kept=())


def _fine_tune(work: Workshop, out: Path) -> Report:
    model = networks.llama(work.source, work.dtype).to(work.device).requires_grad_(False)
    lesson = text_lesson(work.config.adaptation)
    losses = train(networks.moved_parameters(model), work.losses(model, STAGE, lesson), lesson)
    work.save(model, work.blind_words, out)
    return {"steps": len(losses), "first": losses[0], "last": losses[-1]}
