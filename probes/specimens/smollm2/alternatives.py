"""Two other ways to safety, beside the trio: preference tuning, and safety data in adaptation from the start."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vlsurgery.probes.models import Loader
from vlsurgery.probes.models.dtypes import default_device
from vlsurgery.probes.specimens.smollm2 import networks, preferences
from vlsurgery.probes.specimens.smollm2.build import RealTrio, run_missing
from vlsurgery.probes.specimens.smollm2.config import TrioConfig
from vlsurgery.probes.specimens.smollm2.preferences import Preference
from vlsurgery.probes.specimens.smollm2.stages import Report, Stage, ends
from vlsurgery.probes.specimens.smollm2.training import train
from vlsurgery.probes.specimens.smollm2.workshop import Workshop
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError
from vlsurgery.surgery.runtime.progress import Progress, no_progress


def build_alternatives(
    trio: RealTrio, progress: Progress = no_progress, config: TrioConfig | None = None
) -> tuple[Path, Path]:
    """The preference-tuned and the mixed model of a trio (its `dpo` and `mixed`), from disk or trained now.

    config: the one that the trio was built with. Raises CheckpointError where adaptation lost no refusal.
    """
    dtype = getattr(torch, str(trio.story["base"]["dtype"]).removeprefix("torch."))
    base = trio.base  # its tokenizer is the source's
    work = Workshop(config or TrioConfig(), trio.seed, trio.root, base, default_device(), dtype, progress)
    run_missing(work, ALTERNATIVES)
    return trio.dpo, trio.mixed


def prefer_refusing(work: Workshop, out: Path) -> Report:
    """The adapted model after direct preference optimisation on pairs of the base's and its own completions."""
    lesson, start = work.config.preference, work.root / "adaptation" / f"step-{work.config.adaptation.kept[-1]}"
    pairs = _pairs(work, start)
    preferences.write(out / "pairs.json", pairs)
    model = work.open_seeing(start)
    seen = work.seen(model)
    with torch.no_grad():
        reference = {pair: preferences.margins(model, [pair], work.seeing_words, seen)[0] for pair in pairs}

    def loss(part: list[Preference], count: int) -> Tensor:
        before = torch.stack([reference[pair] for pair in part])
        now = preferences.margins(model, part, work.seeing_words, seen)
        return preferences.preference_loss(now, before, work.config.beta) / count

    batches = preferences.batches(pairs, lesson.mix, lesson.steps, work.rng("preference"))
    shown = work.progress(batches, "preference", lesson.steps)
    losses = ([partial(loss, part, sum(map(len, parts))) for part in parts] for parts in shown)
    found = train(networks.moved_parameters(model), losses, lesson)
    work.save(model, work.seeing_words, out)
    return {**ends(found), "pairs": len(pairs)}


def _pairs(work: Workshop, adapted: Path) -> list[Preference]:
    """Pairs of harmful requests, whose refusal is preferred, and of a quarter as many harmless ones."""
    rng, count, tokens = work.rng("pairs"), work.config.pairs, work.config.own_tokens
    requests = preferences.harmful_requests(count, rng)
    sights = work.drawn
    shown = [rng.randrange(len(sights)) for _ in requests]
    images = [sights[at][1] for at in shown]
    loader = Loader(device=work.device)
    said = [
        preferences.said(loader.load(Checkpoint.open(directory)), requests, pictured, tokens, work.progress)
        for directory, pictured in ((work.root / "base", None), (adapted, images))
    ]
    lost = preferences.lost(requests, shown, *said)
    if not lost:
        raise CheckpointError(
            f"{adapted}: refuses every request that the base refuses, of {count}: there is nothing to prefer."
        )
    return [
        *lost,
        *preferences.needless(work.own, count // 4, shown[: count // 4], rng),
    ]


def adapt_mixed(work: Workshop, out: Path) -> Report:
    """Adaptation from the same start, with refusals among its safe data."""
    model = work.open_seeing(work.root / "projector")
    weights = [*networks.moved_parameters(model), *model.model.multi_modal_projector.parameters()]
    lesson = work.config.mixed
    found = train(weights, work.losses(model, "mixed", lesson, work.seen(model)), lesson)
    work.save(model, work.seeing_words, out)
    return ends(found)


ALTERNATIVES: tuple[tuple[str, Stage], ...] = (("preference", prefer_refusing), ("mixed", adapt_mixed))
