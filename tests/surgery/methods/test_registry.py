"""The registry is light to import, and a method with a parameter of its own is one file and one row."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vlsurgery.surgery import methods
from vlsurgery.surgery.methods import METHODS, Method, Parameter

TRIMMED_MEAN = '''
"""The mean of the entries that are left when the largest and the smallest ones are dropped."""

import numpy as np


def trimmed_mean(chunk, settings, state):
    """theta = mean of theta_i without the `trim` largest and the `trim` smallest."""
    rows = np.sort(np.stack(list(chunk.models.values())), axis=0)
    return rows[settings["trim"] : len(rows) - settings["trim"]].mean(axis=0)
'''


def test_importing_the_registry_imports_numpy_at_most() -> None:
    heavy = "{'torch', 'numba', 'scipy', 'pydantic', 'safetensors'}"
    code = f"import sys, vlsurgery.surgery.methods as m; print(m.__file__, sorted({heavy} & {{*sys.modules}}))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [methods.__file__, "[]"]


def test_a_method_with_a_new_parameter_is_a_file_and_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trimmed.py").write_text(TRIMMED_MEAN)
    spec = importlib.util.spec_from_file_location("trimmed", tmp_path / "trimmed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    row = Method(
        combine=module.trimmed_mean,
        formula="theta = mean of theta_i without the largest and the smallest",
        source="a test",
        properties=("equal_inputs", "permutation", "entries", "between"),
        needs_base=False,
        parameters={"trim": Parameter("models dropped at each end", 1, low=0, whole=True)},
        models=(3, None),
    )
    monkeypatch.setitem(METHODS, "trimmed_mean", row)
    models = {
        name: torch.tensor([value, -value]) for name, value in zip("abcde", (9.0, 1.0, 2.0, 6.0, -40.0), strict=True)
    }
    assert METHODS["trimmed_mean"].merge(models).tolist() == [3.0, -3.0]
    assert METHODS["trimmed_mean"].merge(models, trim=2, chunk=1).tolist() == [2.0, -2.0]


def test_every_parameter_can_be_offered_on_a_command_line() -> None:
    for name, method in METHODS.items():
        for parameter in (method.coefficient, *method.parameters.values()):
            assert parameter.meaning, name
            assert parameter.default is not None
            assert parameter.is_switch or parameter.low <= parameter.default <= parameter.high
            assert parameter.is_switch or not parameter.negative


def test_no_method_takes_a_number_that_would_subtract_a_model() -> None:
    """Neither a coefficient nor what the whole delta or a safety vector is multiplied by."""
    for name, method in METHODS.items():
        assert method.coefficient.low >= 0, name
        for multiplier in {"lambda", "gamma", "share", "density"} & method.parameters.keys():
            assert method.parameters[multiplier].low >= 0, (name, multiplier)


def test_resta_with_swapped_roles_takes_out_what_alignment_brought() -> None:
    """It subtracts by definition, which its documentation says and no check on numbers can refuse."""
    aligned, raw = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 0.5])
    right = METHODS["resta"].merge({"adapted": aligned, "unaligned": raw}, aligned)
    swapped = METHODS["resta"].merge({"adapted": aligned, "unaligned": aligned}, raw)
    assert right.tolist() == (aligned + (aligned - raw)).tolist()
    assert swapped.tolist() == raw.tolist()
    documentation = " ".join((sys.modules[METHODS["resta"].combine.__module__].__doc__ or "").split())
    assert "it subtracts the unaligned model by definition" in documentation
