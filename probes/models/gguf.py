"""GGUF files as checkpoints: dequantised by transformers, and written as safetensors with config and tokenizer."""

import importlib.util
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vlsurgery.probes.models.faults import is_out_of_memory, one_line
from vlsurgery.surgery.errors import CheckpointError, TargetError

MAGIC = b"GGUF"
UNQUANTISED = {"F64", "F32", "F16", "BF16"}  # tensor types that are plain floats


@dataclass(frozen=True)
class Conversion:
    """What a conversion read and wrote.

    stored: GGUF's name of a tensor type -> weights of it. bits: of the file a weight. rounding: the relative error that
    rounding to `dtype` adds, |written - dequantised| / |dequantised| over all weights.
    """

    file: Path
    out: Path
    architecture: str
    parameters: int
    stored: Mapping[str, int]
    bits: float
    dtype: str
    rounding: float

    def sentence(self) -> str:
        """What was written, and what precision was lost."""
        kinds = ", ".join(f"{_share(count / self.parameters)} {kind}" for kind, count in self.stored.items())
        told = f"{self.architecture} of {self.parameters:,} weights, stored in {self.bits:.2f} bits each ({kinds})"
        lost = (
            f"Rounding adds a relative error of {self.rounding:.1e}." if self.rounding else "Nothing is lost by that."
        )
        if not set(self.stored) <= UNQUANTISED:
            lost += (
                " What quantisation took from the original weights can't be given back: compare it only with "
                "checkpoints that were made from it."
            )
        return f"{self.out}: {told}, written in {self.dtype}. {lost}"


def _share(part: float) -> str:
    return f"{part:.0%}" if part >= 0.01 else "under 1%"


def convert(file: Path, out: Path, dtype: str = "bfloat16") -> Conversion:
    """Write the model of a GGUF file to a new directory, as transformers saves it.

    dtype: of the written floats: float32, bfloat16 or float16.

    Raises CheckpointError for a file that is no GGUF or that transformers can't read, TargetError for a directory that
    is there already or can't be written. `out` is complete or absent.
    """
    _check(file, out)
    types, bits = _stored(file)
    model, tokenizer = _dequantised(file)
    rounding = _round(model, getattr(torch, dtype))
    config = model.config
    _shorten_floats(config)
    with _new_directory(out) as fresh:
        model.save_pretrained(fresh)
        tokenizer.save_pretrained(fresh)
    parameters = sum(types.values())
    return Conversion(file, out, str(config.architectures[0]), parameters, types, bits, dtype, rounding)


def _check(file: Path, out: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise CheckpointError(
            f"{file}: to read GGUF takes the package gguf. Install it: pip install 'vlsurgery[gguf]'."
        )
    try:
        with file.open("rb") as stream:
            magic = stream.read(len(MAGIC))
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror}). Give a .gguf file.") from error
    if magic != MAGIC:
        raise CheckpointError(f"{file}: is no GGUF file: it begins with {magic!r} in place of {MAGIC!r}.")
    if out.exists():
        raise TargetError(f"{out}: is there already. Give a new directory with -o.")


def _stored(file: Path) -> tuple[dict[str, int], float]:
    """Weights of each tensor type, the commonest first; and the bits of the file a weight."""
    from gguf import GGUFReader

    try:
        tensors = GGUFReader(file).tensors
    except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
        raise CheckpointError(f"{file}: is cut off or damaged: {one_line(error)}. Download it again.") from error
    if not tensors:
        raise CheckpointError(f"{file}: holds no weights, only settings or a vocabulary. Give the file of the model.")
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    nbytes = sum(int(tensor.n_bytes) for tensor in tensors)
    return dict(counts.most_common()), 8 * nbytes / sum(counts.values())


def _dequantised(file: Path) -> tuple[Any, Any]:
    """The model, as one that was never quantised, in float32; and its tokenizer."""
    import transformers

    where = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    try:
        with redirect_stderr(StringIO()):  # a progress bar of its own, which nothing else turns off
            read = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **where)
        tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **where)
    except Exception as error:  # a stranger's file can make any
        if is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"{file}: transformers can't read it: {one_line(error)}. Take the published safetensors instead."
        ) from error
    settings = read.config.to_dict()
    settings.pop("quantization_config", None)
    with torch.device("meta"):
        model = type(read)(type(read.config)(**settings))
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = read.generation_config
    return model, tokenizer


def _round(model: nn.Module, dtype: torch.dtype) -> float:
    """Round a model's floats to a dtype in place; the relative error that this makes."""
    lost = whole = 0.0
    with torch.no_grad():
        for parameter in model.parameters():
            before: Tensor = parameter.data
            parameter.data = before.to(dtype)
            lost += float((parameter.data.float() - before).double().square().sum())
            whole += float(before.double().square().sum())
    model.config.dtype = dtype
    return (lost / whole) ** 0.5 if whole else 0.0


def _shorten_floats(config: Any) -> None:
    """Numbers as they were written before GGUF stored them in float32: 1e-05 in place of 9.999999747378752e-06."""
    for name, value in vars(config).items():
        if isinstance(value, float) and float(np.float32(value)) == value:
            setattr(config, name, float(str(np.float32(value))))


@contextmanager
def _new_directory(out: Path) -> Iterator[Path]:
    """A directory beside `out` that gets its name when the block succeeds, and is removed when it fails."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise TargetError(f"{out}: can't be made ({error.strerror}). Give another directory with -o.") from error
    try:
        yield fresh
        _open_to_readers(fresh)
        fresh.rename(out)
    except OSError as error:
        raise TargetError(f"{out}: can't be written ({error.strerror}).") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _open_to_readers(folder: Path) -> None:
    """Give a directory and its files the modes that new ones have here: temporary ones are for their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~mask)
