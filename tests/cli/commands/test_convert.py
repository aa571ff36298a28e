"""`convert`: what a cluster's workers make is what one process makes, a plan writes nothing, faults are one line."""

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from typer.testing import Result

Run = Callable[..., Result]

SIZE, WIDTH, VOCABULARY = 32, 48, 8
SHAPES = {
    "token_embd": (VOCABULARY, SIZE),
    "output": (VOCABULARY, SIZE),
    "output_norm": (SIZE,),
    **{f"blk.0.{part}_norm": (SIZE,) for part in ("attn", "ffn")},
    **{f"blk.0.attn_{part}": (SIZE, SIZE) for part in ("q", "k", "v", "output")},
    **{f"blk.0.ffn_{part}": (WIDTH, SIZE) for part in ("gate", "up")},
    "blk.0.ffn_down": (SIZE, WIDTH),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A llama of one layer."""
    path = tmp_path / "in" / "tiny.gguf"
    path.parent.mkdir()
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(64)
    out.add_embedding_length(SIZE)
    out.add_block_count(1)
    out.add_feed_forward_length(WIDTH)
    out.add_head_count(2)
    out.add_head_count_kv(2)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(VOCABULARY)
    out.add_tokenizer_model("gpt2")
    out.add_token_list(["<unk>", "<s>", "</s>", *"abc", "ab", "bc"])
    out.add_token_merges(["a b", "b c"])
    numbers = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        out.add_tensor(f"{name}.weight", numbers.normal(size=shape).astype(np.float32))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return path


def test_a_cluster_gives_what_one_process_gives(run: Run, file: Path, addresses: list[str]) -> None:
    for out, more in (("alone", []), ("divided", ["--ray", "local:2"])):
        shown = run("convert", file, "-o", out, "--max-shard-size", "6kB", "--json", *more)
        assert shown.exit_code == 0, shown.stderr
        assert json.loads(shown.stdout)["bits"] == 32
    alone, divided = ({each.name: each.read_bytes() for each in Path(out).iterdir()} for out in ("alone", "divided"))
    assert alone == divided
    assert len([name for name in alone if name.endswith(".safetensors")]) > 2
    assert addresses == ["local:2"]


def test_a_plan_says_tasks_bytes_and_time_and_writes_nothing(run: Run, file: Path, addresses: list[str]) -> None:
    (step,) = json.loads(run("convert", file, "-o", "out", "--plan", "--json").stdout)["plan"]
    assert step == {"step": "convert", "reads": str(file), "writes": ["out"]}
    order = ["convert", file, "-o", "out", "--max-shard-size", "6kB", "--plan", "--ray", "local:2"]
    (step,) = json.loads(run(*order, "--json").stdout)["plan"]
    entries = sum(int(np.prod(shape)) for shape in SHAPES.values())
    assert step["bytes_read"] == 4 * entries
    assert step["bytes_written"] > 2 * entries
    divided = step["ray"]
    assert divided["tasks"] > divided["workers"] == 2
    assert step["bytes_read"] / 2 < divided["worker_bytes"] < step["bytes_read"] + step["bytes_written"]
    assert 0 < divided["seconds"] < 600
    assert "tasks for 2 workers" in run(*order).stdout
    assert not addresses
    assert not list(Path().glob("out*"))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--ray", "nowhere"], "--ray nowhere: expected local, local:N"),
        (["--ray", "nowhere", "--plan"], "--ray nowhere: expected local, local:N"),
        (["--max-shard-size", "much"], "'much' is no size"),
    ],
)
def test_faults_are_one_line_and_write_nothing(run: Run, file: Path, more: list[str], said: str) -> None:
    shown = run("convert", file, "-o", "out", *more)
    assert shown.exit_code == 2
    assert said in shown.stderr
    assert len(shown.stderr.splitlines()) == 1
    assert not list(Path().glob("out*"))
