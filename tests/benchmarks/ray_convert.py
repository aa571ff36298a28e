"""What a Ray cluster on this machine gives a conversion: the same bytes, whoever is killed.

    python tests/benchmarks/ray_convert.py [--file FILE.gguf] [--kills 5] [--drivers 3]

A GGUF file of about 300 MB is made where none is given. bytes: by two workers and by one process; every file is
compared. kills: random workers are killed with SIGKILL in the middle of a shard, until --kills of them were. drivers:
the program itself is killed at random moments, and the same command given again. memory: the peak of each worker
(VmHWM). Random moments follow --seed. Ends with 1 where a file differs or something is left running.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np
import psutil
from ray_merge import digests, killer, left_running, peaks
from timing import run, vlsurgery

from vlsurgery.probes.models.gguf import convert
from vlsurgery.surgery.runtime.ray_cluster import ray_cluster

SIZE, WIDTH, LAYERS, VOCABULARY = 1024, 4096, 16, 8192
SHARD_BYTES = 50_000_000
SHARD_SIZE = "50MB"
Q8 = gguf.GGMLQuantizationType.Q8_0


def made(file: Path) -> Path:
    """A llama of random weights in eight bits."""
    out = gguf.GGUFWriter(file, "llama")
    out.add_context_length(64)
    out.add_embedding_length(SIZE)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(WIDTH)
    out.add_head_count(8)
    out.add_head_count_kv(8)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(VOCABULARY)
    out.add_tokenizer_model("gpt2")
    out.add_token_list(["a", "b", "c", "ab", "bc", *(f"t{number}" for number in range(5, VOCABULARY))])
    out.add_token_merges(["a b", "b c"])
    numbers = np.random.default_rng(0)
    shapes = {"token_embd": (VOCABULARY, SIZE), "output": (VOCABULARY, SIZE), "output_norm": (SIZE,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.attn_{part}": (SIZE, SIZE) for part in ("q", "k", "v", "output")}
        shapes |= {f"blk.{layer}.ffn_{part}": (WIDTH, SIZE) for part in ("gate", "up")}
        shapes |= {f"blk.{layer}.ffn_down": (SIZE, WIDTH)}
        shapes |= {f"blk.{layer}.{part}_norm": (SIZE,) for part in ("attn", "ffn")}
    for name, shape in shapes.items():
        kind = Q8 if len(shape) > 1 else gguf.GGMLQuantizationType.F32
        data = numbers.standard_normal(shape, np.float32)
        out.add_tensor(f"{name}.weight", gguf.quants.quantize(data, kind), raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return file


def worker_kills(file: Path, folder: Path, wanted: dict[str, str], count: int, seed: int) -> bool:
    kills: list[int] = []
    done, equal, out = 0, 0, folder / "killed"
    with ray_cluster("local:2") as engine, killer(random.Random(seed), 8.0, 2.0, kills, count):
        while len(kills) < count:
            convert(file, out, engine=engine, max_shard_bytes=SHARD_BYTES)
            equal += digests(out) == wanted
            done += 1
            shutil.rmtree(out)
    print(
        f"kills: {len(kills)} workers killed in the middle of a shard; {equal} of {done} conversions equal", flush=True
    )
    return equal == done


def driver_kills(file: Path, folder: Path, wanted: dict[str, str], count: int, seed: int) -> bool:
    rng, out, equal, kept = random.Random(seed), folder / "out", 0, []
    below: list[psutil.Process] = []
    words = ["convert", file, "-o", out, "--max-shard-size", SHARD_SIZE, "--quiet", "--ray", "local:2"]
    command, partial = [*map(str, vlsurgery(*words))], folder / "out.partial"
    shards = len([name for name in wanted if name.endswith(".safetensors")])
    for _ in range(count):
        moment = rng.randrange(1, shards)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            while process.poll() is None and len([*partial.glob("*.safetensors")]) < moment:
                time.sleep(0.01)
            below += psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGKILL)
        kept.append(len([*partial.glob("*.safetensors")]))
        run(command)
        equal += digests(out) == wanted
        shutil.rmtree(out)
    left = left_running(below)
    print(
        f"drivers: {count} killed, when {', '.join(map(str, kept))} of {shards} shards were finished; {equal} equal "
        f"after the same command again; {len(left)} processes of their clusters left {'; '.join(left)}",
        flush=True,
    )
    return equal == count and not left


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--drivers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = options.file or made(folder / "large.gguf")
        alone, divided = folder / "alone", folder / "divided"
        words = ["convert", file, "--max-shard-size", SHARD_SIZE, "--quiet", "-o"]
        took, _ = peaks([*map(str, vlsurgery(*words, alone))])
        wanted = digests(alone)
        both, found = peaks([*map(str, vlsurgery(*words, divided, "--ray", "local:2"))])
        equal = digests(divided) == wanted
        print(
            f"bytes: {len(wanted)} files of {os.path.getsize(file) / 1e6:.0f} MB {'equal' if equal else 'DIFFER'}; "
            f"{took:.1f} s alone, {both:.1f} s by 2 workers, {max(found.values()) / 2**30:.2f} GiB a worker at most",
            flush=True,
        )
        good = [
            equal,
            worker_kills(file, folder, wanted, options.kills, options.seed),
            driver_kills(file, folder, wanted, options.drivers, options.seed),
        ]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
