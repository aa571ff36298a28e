"""How long it takes to open a checkpoint of 100,000 tensors in 1,000 shards and its twin, and to align them.

Run it as `python tests/benchmarks/opening.py`. The twin has the same names, and then the names that modules have
where the base has the Hub's older ones. The limits: 3 s (half of it for opening), and 500 MB beyond the interpreter.
Each round runs in a process of its own; modules are imported before the clock starts.
"""

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.headers import header_bytes

WIDTH, VOCABULARY, EXPERTS = 4, 8, 30
CONFIG = {"model_type": "qwen3_moe", "hidden_size": WIDTH, "vocab_size": VOCABULARY, "tie_word_embeddings": False}

# What stands before the names of the stack, and before the head: a language model's own names, and those of one inside
# a vision-language model, as files have them and as modules have them.
PREFIXES = {
    "plain": ("model.", ""),
    "legacy": ("language_model.model.", "language_model."),
    "native": ("model.language_model.", ""),
}


def layer(stem: str) -> dict[str, tuple[int, ...]]:
    """A layer of 99 tensors: attention, norms, and thirty small experts."""
    shapes: dict[str, tuple[int, ...]] = {f"{stem}.self_attn.{part}_proj.weight": (WIDTH, WIDTH) for part in "qkvo"}
    shapes |= {f"{stem}.{part}_layernorm.weight": (WIDTH,) for part in ("input", "post_attention")}
    shapes |= {f"{stem}.self_attn.{part}_norm.weight": (2,) for part in "qk"}
    shapes[f"{stem}.mlp.gate.weight"] = (EXPERTS, WIDTH)
    for expert in range(EXPERTS):
        shapes |= {f"{stem}.mlp.experts.{expert}.{part}_proj.weight": (2, WIDTH) for part in ("gate", "up")}
        shapes[f"{stem}.mlp.experts.{expert}.down_proj.weight"] = (WIDTH, 2)
    return shapes


def make(path: Path, shards: int, tensors: int, layout: str) -> None:
    """A checkpoint of that many shards and tensors, a layer of 99 after the other, named as `layout` does."""
    path.mkdir()
    stack, head = PREFIXES[layout]
    ends: dict[str, tuple[int, ...]] = {
        f"{stack}embed_tokens.weight": (VOCABULARY, WIDTH),
        f"{stack}norm.weight": (WIDTH,),
        f"{head}lm_head.weight": (VOCABULARY, WIDTH),
    }
    layers = (tensors - len(ends)) // len(layer(""))
    shapes = dict(ends)
    for number in range(layers):
        shapes |= layer(f"{stack}layers.{number}")
    # What is left of the round number is an extra table that belongs to no layer.
    shapes |= {f"extra.{number}": (2,) for number in range(tensors - len(shapes))}
    names = list(shapes)
    per_shard = math.ceil(len(names) / shards)
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = names[number * per_shard : (number + 1) * per_shard]
        members = [(name, "BF16", shapes[name], 2 * math.prod(shapes[name])) for name in part]
        content = bytes(sum(nbytes for *_, nbytes in members))
        (path / file).write_bytes(header_bytes(members, {"format": "pt"}) + content)
        weight_map |= dict.fromkeys(part, file)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (path / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": layers}))


def measure(base: Path, adapted: Path) -> dict[str, float]:
    """Seconds and megabytes of opening and aligning two checkpoints in this process."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    checkpoints = {"base": Checkpoint.open(base), "adapted": Checkpoint.open(adapted)}
    opened = time.perf_counter()
    alignment = align(checkpoints)
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "tensors": len(checkpoints["base"]),
        "pairs": len(alignment.pairs),
        "open, s": round(opened - start, 3),
        "align, s": round(done - opened, 3),
        "together, s": round(done - start, 3),
        "beyond the interpreter, MB": round((peak - before) / 1024, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--tensors", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for pair in (("plain", "plain"), ("legacy", "native")):
            twins = [Path(folder) / f"{role}-{layout}" for role, layout in zip(("base", "adapted"), pair, strict=True)]
            for path, layout in zip(twins, pair, strict=True):
                make(path, options.shards, options.tensors, layout)
            print(f"{pair[0]} names against {pair[1]} ones", flush=True)
            for _ in range(options.rounds):
                subprocess.run([sys.executable, __file__, "--measure", *map(str, twins)], check=True)


if __name__ == "__main__":
    main()
