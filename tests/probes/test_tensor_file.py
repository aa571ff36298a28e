import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load

from vlsurgery.probes.tensor_file import tensor_file


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_the_library_reads_what_was_written(dtype, tmp_path):
    tensors = {"b": torch.arange(6).reshape(2, 3).T.to(dtype), "a": torch.tensor(2).to(dtype)}
    metadata = {"über": "é\n", "a": "1"}
    written = tensor_file(tensors, metadata)
    back = load(written)
    assert all(torch.equal(back[name], value) and back[name].dtype == dtype for name, value in tensors.items())
    path = tmp_path / "file.safetensors"
    path.write_bytes(written)
    with safe_open(path, "pt") as file:
        assert file.metadata() == metadata


def test_the_order_in_which_things_are_given_does_not_show():
    tensors, metadata = {"b": torch.ones(2), "a": torch.zeros(1)}, {f"key{n}": str(n) for n in range(20)}
    other = tensor_file(dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    assert tensor_file(tensors, metadata) == other
