"""A GGUF file as transformers understands it: which parameters its model has, and how each is made of its tensors.

transformers knows the names, the permutations and the settings of every architecture, but reads a file whole, in
float32. Here its parts are asked for one parameter at a time.
"""

import importlib.util
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, redirect_stderr
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
from torch import Tensor

from vlsurgery.probes.models.faults import is_out_of_memory, one_line
from vlsurgery.surgery.errors import CheckpointError

Made = TypeVar("Made")

MAGIC: Final = b"GGUF"
OLDEST_GGUF: Final = (0, 16, 3)  # as the extra says: older ones fail with NumPy 2, or import what they don't install
# How transformers treats a file's tensors, by its own classes: of these, rows are treated one by one, but for the
# queries and keys that it rotates.
ROW_BY_ROW: Final = ("TensorProcessor", "LlamaTensorProcessor", "Gemma2TensorProcessor", "NemotronTensorProcessor")
ROTATED: Final = (".attn_q.", ".attn_k.")


@dataclass(frozen=True)
class Unit:
    """What is written of one parameter of the model in memory: mostly itself; of fused experts, a tensor for each.

    tensors: name and shape of each, in the order in which they are written. rewritten: whether they are not the
    parameter as it is.
    """

    parameter: str
    tensors: tuple[tuple[str, tuple[int, ...]], ...]
    rewritten: bool


@dataclass(frozen=True)
class GGUFHeader:
    """What transformers makes of a file's header, as plain data: workers need not find it out again.

    architecture: by llama.cpp's name. settings: of the config. names: tensor of the file -> parameter.
    """

    architecture: str
    settings: Mapping[str, Any]
    names: Mapping[str, str]


@dataclass(frozen=True)
class GGUFModel:
    """A GGUF file and its model without weights.

    tensors: of the file, as gguf has them. model: of transformers, on the meta device, with its config. processor:
    undoes what llama.cpp does to tensors.
    """

    file: Path
    header: GGUFHeader
    tensors: Sequence[Any]
    model: Any
    processor: Any

    @cached_property
    def sources(self) -> Mapping[str, Sequence[Any]]:
        """Parameter -> the file's tensors that it is made of; transformers leaves out the ending of fused experts."""
        found: dict[str, list[Any]] = defaultdict(list)
        for tensor in self.tensors:
            names = self.header.names
            parameter = names.get(tensor.name) or names.get(tensor.name.removesuffix(".weight"))
            if parameter is not None:
                found[parameter].append(tensor)
        return dict(found)

    @cached_property
    def units(self) -> list[Unit]:
        """What is written, by parameter, in the model's order; tied parameters once.

        Raises CheckpointError where the file has no tensor for a parameter, and where transformers writes several
        parameters as one.
        """
        held = _held(self.model)
        for name in held:
            if name not in self.sources:
                raise CheckpointError(
                    f"{self.file}: holds no tensor for {name}, which a {type(self.model).__name__} has. Take the "
                    "published safetensors instead."
                )
        whole = self._saved(held)
        is_plain = whole.keys() == held.keys() and all(whole[name] is tensor for name, tensor in held.items())
        units = [
            _unit(name, tensor, {name: tensor} if is_plain else self._saved({name: tensor}))
            for name, tensor in held.items()
        ]
        if sorted(name for unit in units for name, _ in unit.tensors) != sorted(whole):
            raise CheckpointError(
                f"{self.file}: a {type(self.model).__name__} is stored with several parameters in one tensor, which "
                "can't be written one by one. Take the published safetensors instead."
            )
        return units

    def rows(self, unit: Unit) -> int | None:
        """How many rows a unit has that can be made one by one; None where it is only made as a whole."""
        sources = self.sources[unit.parameter]
        known = type(self.processor).__name__ in ROW_BY_ROW and len(sources) == 1
        if (
            not known
            or unit.rewritten
            or any(part in sources[0].name for part in ROTATED)
            or len(unit.tensors[0][1]) < 2
        ):
            return None
        return unit.tensors[0][1][0]

    def make_rows(self, unit: Unit, start: int, stop: int) -> np.ndarray:
        """The rows `start` to `stop` of a unit, in float32."""
        ((name, shape),), (source,) = unit.tensors, self.sources[unit.parameter]
        made = _asked(self.file, lambda: self._made(unit.parameter, [(source, self._stored(source, start, stop))]))
        return self._checked(name, (stop - start, *shape[1:]), made)

    def make(self, unit: Unit) -> list[np.ndarray]:
        """The tensors of a unit, in float32."""

        def made() -> Mapping[str, Tensor]:
            sources = [(each, self._stored(each, 0, len(each.data))) for each in self.sources[unit.parameter]]
            parameter = torch.from_numpy(self._made(unit.parameter, sources))
            return self._saved({unit.parameter: parameter}) if unit.rewritten else {unit.parameter: parameter}

        found = _asked(self.file, made)
        return [self._checked(name, shape, found[name].contiguous().numpy()) for name, shape in unit.tensors]

    def _stored(self, source: Any, start: int, stop: int) -> np.ndarray:
        """Rows of a tensor as the file has them. gguf maps the file, of which every page that was read would stay in
        this process's memory."""
        rows: np.ndarray = source.data  # of which only shape and dtype are looked at
        width = rows[:1].nbytes
        found = np.fromfile(
            self.file, rows.dtype, width * (stop - start) // rows.itemsize, offset=source.data_offset + width * start
        )
        return found.reshape(stop - start, *rows.shape[1:])

    def _made(self, parameter: str, sources: Sequence[tuple[Any, np.ndarray]]) -> np.ndarray:
        """A parameter of these bytes of the file's tensors: dequantised, then as transformers has it."""
        from gguf import dequantize

        stash: dict[str, dict[str, Any]] = {"tensors": {}}
        for source, data in sources:
            result = self.processor.process(
                weights=dequantize(data, source.tensor_type),
                name=source.name,
                tensor_key_mapping=self.header.names,
                parsed_parameters=stash,
            )
            if result.name in self.header.names:
                stash["tensors"][self.header.names[result.name]] = result.weights
        held = stash["tensors"][parameter]  # a tensor where transformers fused it itself
        found: np.ndarray = np.array(held.numpy() if isinstance(held, Tensor) else held, np.float32, order="C")
        return found

    def _saved(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What transformers writes of parameters: the layout of the published checkpoint, not that in memory."""
        from transformers.core_model_loading import revert_weight_conversion

        return dict(revert_weight_conversion(self.model, dict(parameters)))

    def _checked(self, name: str, shape: tuple[int, ...], made: np.ndarray) -> np.ndarray:
        if made.shape != shape:
            raise CheckpointError(
                f"{self.file}: tensor {name}: its settings need the shape {shape}, and it has {made.shape}. Download "
                "the file again, or take the published safetensors."
            )
        return made


def open_gguf(file: Path, header: GGUFHeader | None = None) -> GGUFModel:
    """A GGUF file and the model that it is of; no weights are read.

    header: of this file, where it is known.

    Raises CheckpointError for a file that is no GGUF, that is cut off, or that transformers can't read.
    """
    _check(file)
    reader = _reader(file)
    architecture, settings = (header.architecture, header.settings) if header else _settings(file, reader)

    def understood() -> GGUFModel:
        from transformers import AutoConfig, AutoModelForCausalLM
        from transformers.modeling_gguf_pytorch_utils import (
            TENSOR_PROCESSORS,
            TensorProcessor,
            get_gguf_hf_weights_map,
        )

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), trust_remote_code=False)
        model.tie_weights()
        processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=dict(settings))
        names = header.names if header else get_gguf_hf_weights_map(model, processor)
        return GGUFModel(file, GGUFHeader(architecture, settings, names), reader.tensors, model, processor)

    return _asked(file, understood)


def tokenizer_of(file: Path) -> Any:
    """The tokenizer of a GGUF file. Raises CheckpointError as `open_gguf`."""
    from transformers import AutoTokenizer

    where = {"gguf_file": file.name, "local_files_only": True, "trust_remote_code": False}
    with _without_bars():
        return _asked(file, lambda: AutoTokenizer.from_pretrained(file.parent, **where))


def _check(file: Path) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise CheckpointError(
            f"{file}: to read GGUF takes the package gguf. Install it: pip install 'vlsurgery[gguf]'."
        )
    found = version("gguf")
    if tuple(map(int, re.findall(r"\d+", found)[:3])) < OLDEST_GGUF:
        raise CheckpointError(
            f"{file}: to read GGUF takes the package gguf {'.'.join(map(str, OLDEST_GGUF))} or newer, and {found} is "
            "installed. Run: pip install --upgrade 'vlsurgery[gguf]'."
        )
    try:
        with file.open("rb") as stream:
            magic = stream.read(len(MAGIC))
    except OSError as error:
        raise CheckpointError(f"{file}: can't be read ({error.strerror}). Give a .gguf file.") from error
    if magic != MAGIC:
        raise CheckpointError(f"{file}: is no GGUF file: it begins with {magic!r} in place of {MAGIC!r}.")


def _reader(file: Path) -> Any:
    """The file as gguf reads it, with its tensors and settings."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
    except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
        raise CheckpointError(f"{file}: is cut off or damaged: {one_line(error)}. Download it again.") from error
    if not reader.tensors:
        raise CheckpointError(f"{file}: holds no weights, only settings or a vocabulary. Give the file of the model.")
    return reader


def _settings(file: Path, reader: Any) -> tuple[str, dict[str, Any]]:
    """The file's architecture by llama.cpp's name, and its settings by those of transformers."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint, read_field

    with _without_bars():
        settings = _asked(file, lambda: load_gguf_checkpoint(str(file))["config"])
    return _asked(file, lambda: str(read_field(reader, "general.architecture")[0])), settings


def _held(model: Any) -> dict[str, Tensor]:
    """The parameters and buffers of a model that are saved, by name, tied ones once."""
    tensors = model.state_dict(keep_vars=True)
    first: dict[int, str] = {}
    for name, tensor in tensors.items():
        first.setdefault(id(tensor), name)
    ignored = model._keys_to_ignore_on_save or ()
    return {name: tensors[name].detach() for name in first.values() if name not in ignored}


def _unit(name: str, parameter: Tensor, saved: Mapping[str, Tensor]) -> Unit:
    rewritten = list(saved) != [name] or saved[name] is not parameter
    return Unit(name, tuple((key, tuple(made.shape)) for key, made in saved.items()), rewritten)


def _without_bars() -> AbstractContextManager[Any]:
    """Without the progress bars of transformers' own, which nothing else turns off."""
    return redirect_stderr(StringIO())


def _asked(file: Path, question: Callable[[], Made]) -> Made:
    """What transformers or gguf says of a file. Raises CheckpointError for whatever they raise but the lack of
    memory."""
    try:
        return question()
    except Exception as error:  # a stranger's file can make any
        if is_out_of_memory(error) or isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{file}: transformers can't read it: {one_line(error)}. Take the published safetensors instead."
        ) from error
