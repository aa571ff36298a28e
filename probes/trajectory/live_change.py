"""How far the blocks of a model in training are from a reference, which is read from disk, one weight at a time."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from vlsurgery.probes.trajectory.live_weights import LiveWeight, squares
from vlsurgery.surgery.architecture.layouts import TensorView, locate
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import SurgeryError


class StartWeights:
    """The trained weights as they were when training began, in temporary files that go with this object.

    Raises SurgeryError where there is no room for them.
    """

    def __init__(self, weights: Sequence[LiveWeight]) -> None:
        trained = [each for each in weights if each.trained]
        need = sum(each.parameter.numel() * _kept_dtype(each).itemsize for each in trained)
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if need > free:
            raise SurgeryError(
                f"TrainerCallback: the start weights take {need / 1e9:.1f} GB in {tempfile.gettempdir()}, where "
                f"{free / 1e9:.1f} GB are free. Set TMPDIR, or give base=PATH, the checkpoint it starts from."
            )
        self._folder = Path(tempfile.mkdtemp(prefix="vlsurgery-start-"))
        self._end = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._files: dict[str, Path] = {}
        for number, each in enumerate(trained):
            self._files[each.name] = self._folder / f"{number}.safetensors"
            save_file({"weight": each.now().to(_kept_dtype(each)).cpu().contiguous()}, self._files[each.name])

    def read(self, weight: LiveWeight) -> Tensor | None:
        """The weight at the start; None where it can't change."""
        if weight.name not in self._files:
            return None
        with safe_open(os.fspath(self._files[weight.name]), framework="pt") as file:
            start: Tensor = file.get_tensor("weight")
        return start

    def close(self) -> None:
        """Delete the files."""
        self._end()


def _kept_dtype(weight: LiveWeight) -> torch.dtype:
    """The parameter's own dtype; float32 where an adapter adds to it, which rounds to no coarser one."""
    return weight.parameter.dtype if weight.layer is None else torch.float32


class CheckpointWeights:
    """The weights of a checkpoint at the sites of a live model.

    Raises SurgeryError where a weight has no partner of its shape in the checkpoint, rows of tokens that were added
    aside.
    """

    def __init__(self, weights: Sequence[LiveWeight], base: Checkpoint) -> None:
        self._base = base
        views = locate(base.shapes, base.config, base.text_stack)
        self._views: dict[str, TensorView] = {}
        for each in weights:
            view = views.get(each.site)
            shape = None if view is None else view.shape(base.shapes[view.name])
            if view is None or shape is None or not _fits(shape, tuple(each.parameter.shape)):
                found = "nothing" if shape is None else f"a tensor of {'x'.join(map(str, shape))}"
                raise SurgeryError(
                    f"TrainerCallback(base=...): {each.name} ({each.site.key}) is "
                    f"{'x'.join(map(str, each.parameter.shape))} in training, and {base.ref} has {found} there. Give "
                    "the checkpoint that training starts from, or none to compare with the start of training."
                )
            self._views[each.name] = view

    def read(self, weight: LiveWeight) -> Tensor | None:
        """The weight in the checkpoint."""
        view = self._views[weight.name]
        tensor = self._base[view.name].load()
        if view.slices is not None:
            tensor = tensor[view.slices]
        return tensor.mT if view.transposed else tensor

    def close(self) -> None:
        """Nothing is held."""


def _fits(reference: tuple[int, ...], live: tuple[int, ...]) -> bool:
    """Whether a live weight has the reference's shape, or more rows of it."""
    return reference[1:] == live[1:] and reference[:1] <= live[:1]


class LiveChange:
    """How far each block is from the reference."""

    def __init__(self, weights: Sequence[LiveWeight], reference: StartWeights | CheckpointWeights) -> None:
        self._weights, self._reference = list(weights), reference
        self._still: dict[str, float] = {}  # squared norms of weights that can't change

    def relative(self) -> dict[str, float]:
        """Block -> norm of its change over the norm that it had in the reference; blocks of norm 0 are left out."""
        moved: dict[str, float] = {}
        whole: dict[str, float] = {}
        for each in self._weights:
            start = self._reference.read(each)
            if start is None:
                if each.name not in self._still:
                    self._still[each.name] = squares(each.parameter.detach())
                before = self._still[each.name]
            else:
                start = start.to(each.parameter.device, torch.float32)
                before = squares(start)
                moved[each.block] = moved.get(each.block, 0.0) + squares(each.now()[: len(start)] - start)
            whole[each.block] = whole.get(each.block, 0.0) + before
        return {block: (moved.get(block, 0.0) / norm) ** 0.5 for block, norm in whole.items() if norm}

    def close(self) -> None:
        """Let go of the reference."""
        self._reference.close()
