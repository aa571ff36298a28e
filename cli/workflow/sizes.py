"""The sizes of models and of what they are asked: from headers, prompts, and what a case has found already."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from vlsurgery.cli.workflow.choice import measured_beside
from vlsurgery.cli.workflow.engine import Job
from vlsurgery.cli.workflow.estimates import ModelSizes
from vlsurgery.cli.workflow.speed import ModelShape, Speed, measured
from vlsurgery.cli.workflow.workload import Expected, Outcome, RoleShape, Workload
from vlsurgery.probes.models import Loader
from vlsurgery.probes.models.dtypes import default_device, device_of, run_dtype
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import TargetsResult
from vlsurgery.surgery.checkpoint import Checkpoint

SPECIMEN_ANSWER: Final = 7.0  # mean tokens of a completion of the miniature's models
ANSWER_SHARE: Final = 0.75  # of the tokens that a completion may have, of other models
MINIATURE: Final = ModelShape(8, 64, 378_000, 15_168, 159_000, 4, 567_000, 4)
REAL: Final = ModelShape(30, 576, 106_200_000, 28_400_000, 2_700_000, 9, 137_400_000, 2)
PATCHES: Final = 256  # of a picture, where the config does not say


def sizes_of(job: Job, prompts: Sequence[Prompt], is_merged: bool) -> ModelSizes:
    """What the steps of a job are planned from, were it to ask these prompts.

    is_merged: whether there is a merge by the time that models are evaluated.
    """
    checkpoints, adapted = job.checkpoints, job.checkpoints["adapted"]
    nbytes = {role: sum(tensor.nbytes for tensor in each.values()) for role, each in checkpoints.items()}
    loader = job.loader("probe")
    shape = shape_of(adapted, loader)
    return ModelSizes(
        stored=sum(nbytes.values()),
        adapted=nbytes["adapted"],
        shape=shape,
        workload=_workload(job, prompts, shape, is_merged),
        speed=speed_of(adapted, shape, loader),
    )


def free_sizes(
    checkpoints: Mapping[str, Checkpoint], prompts: Sequence[Prompt], loader: Loader, tokens: int, answer: float
) -> ModelSizes:
    """What an evaluation of any models is planned from; all are taken to be as large as the largest."""
    largest = max(checkpoints.values(), key=lambda each: sum(tensor.numel for tensor in each.values()))
    nbytes = [sum(tensor.nbytes for tensor in each.values()) for each in checkpoints.values()]
    shape = shape_of(largest, loader)
    workload = Workload(
        prompts=prompts,
        roles={role: role_shape(each) for role, each in checkpoints.items()},
        layers=shape.layers,
        blocks=0,
        picture_tokens=picture_tokens(largest.config),
        outcome=Outcome.at_most((), sees=True),
        expected=Expected(answer=answer),
        tokens=tokens,
        free=True,
    )
    return ModelSizes(sum(nbytes), 0, shape, workload, speed_of(largest, shape, loader))


def specimen_sizes(real: bool, seed: int, tokens: int) -> ModelSizes:
    """What a built-in specimen's case is planned from, whether it is trained already or not; on the CPU."""
    import torch

    from vlsurgery.probes.specimens import miniature, smollm2

    prompts = smollm2.prompts() if real else miniature.prompts(seed)
    shape = REAL if real else MINIATURE
    vocabulary = shape.head // shape.hidden
    sees = {"base": False, "adapted": True, "safety": True}
    workload = Workload(
        prompts=prompts,
        roles={role: RoleShape(seen, vocabulary - (not seen and not real)) for role, seen in sees.items()},
        layers=shape.layers,
        blocks=2 * shape.layers + (2 if real else 3),
        picture_tokens=shape.patches,
        outcome=Outcome.at_most(prompts, sees=True),
        expected=Expected.of(answer_of(not real, tokens), 2),
        tokens=tokens,
        merged=True,
    )
    stored = shape.bytes_each * shape.all
    speed = measured(shape.hidden, torch.bfloat16 if shape.bytes_each == 2 else torch.float32, "cpu")
    return ModelSizes(3 * stored, stored, shape, workload, speed)


def _workload(job: Job, prompts: Sequence[Prompt], shape: ModelShape, is_merged: bool) -> Workload:
    adapted = job.checkpoints["adapted"]
    roles = {role: role_shape(each) for role, each in job.checkpoints.items()}
    tokens = job.judge_source.tokens
    answer = answer_of(job.prompt_source.specimen is not None, tokens)
    outcome, targets = Outcome.at_most(prompts, roles["adapted"].sees), job.case.result(TargetsResult)
    if targets is not None and targets.records:
        answer = sum(len(row.ids) for row in targets.records) / len(targets.records)
        if {row.prompt for row in targets.records} <= {prompt.id for prompt in prompts}:
            outcome = Outcome.of(prompts, targets)
    blocks = {site.block for site in adapted.sites.values() if site.tower == "text" and site.block}
    return Workload(
        prompts=prompts,
        roles=roles,
        layers=shape.layers,
        blocks=len(blocks),
        picture_tokens=picture_tokens(adapted.config),
        outcome=outcome,
        expected=Expected.of(answer, len(job.sources)),
        tokens=tokens,
        policy=job.options.policy,
        frontier=measured_beside(job.options),
        merged=is_merged,
    )


def answer_of(is_specimen: bool, tokens: int) -> float:
    """Mean tokens of a completion, as expected before there is any. tokens: at most."""
    return min(SPECIMEN_ANSWER, tokens) if is_specimen else ANSWER_SHARE * tokens


def role_shape(checkpoint: Checkpoint) -> RoleShape:
    """What of a checkpoint changes which prompts it is asked."""
    sites = checkpoint.sites
    rows = [checkpoint[name].shape[0] for name, site in sites.items() if site.component in ("head", "embed")]
    return RoleShape(any(site.tower == "vision" for site in sites.values()), max(rows, default=0))


def shape_of(checkpoint: Checkpoint, loader: Loader) -> ModelShape:
    """What of a checkpoint its time depends on."""
    sites = checkpoint.sites
    text = {name: site for name, site in sites.items() if site.tower == "text"}
    tables = [checkpoint[name].shape for name, site in text.items() if site.component == "embed"]
    rows, hidden = max(tables, default=(0, 1))[:2]
    inside = [name for name, site in text.items() if site.layer is not None or site.own_layer is not None]
    vision = [name for name, site in sites.items() if site.tower in ("vision", "projector")]
    return ModelShape(
        layers=max(1, len({(site.layer, site.own_layer) for name, site in text.items() if name in set(inside)})),
        hidden=hidden,
        parameters=sum(checkpoint[name].numel for name in inside),
        head=rows * hidden,
        vision=sum(checkpoint[name].numel for name in vision),
        patches=_patches(checkpoint.config),
        all=sum(tensor.numel for tensor in checkpoint.values()),
        bytes_each=run_dtype(checkpoint, loader.dtype, device_of(loader.device)).itemsize,
    )


def speed_of(checkpoint: Checkpoint, shape: ModelShape, loader: Loader) -> Speed:
    """This machine's speed at a checkpoint's width, in the dtype and on the device that it would run."""
    device = device_of(loader.device)
    place = default_device() if device == "auto" else device
    return measured(shape.hidden, run_dtype(checkpoint, loader.dtype, device), place)


def picture_tokens(config: Mapping[str, Any]) -> int:
    """The tokens of one picture within a prompt, as far as the config says."""
    said = config.get("image_seq_length") or config.get("mm_tokens_per_image")
    return said if isinstance(said, int) else _patches(config)


def _patches(config: Mapping[str, Any]) -> int:
    """The patches of one picture of the size that the config states."""
    tower = config.get("vision_config")
    tower = tower if isinstance(tower, Mapping) else {}
    side, patch = tower.get("image_size"), tower.get("patch_size")
    if isinstance(side, int) and isinstance(patch, int) and patch > 0:
        return max(1, (side // patch) ** 2)
    return PATCHES
