"""Large checkpoints for benchmarks: a Llama's shapes with random bfloat16 weights, and children that moved a little.

    python tests/benchmarks/synthetic.py DIR [--gb 2.2] [--roles base,adapted,safety] [--seed N]

Writes DIR/ROLE for each role. The first role's entries are normal with standard deviation .02; every other role's are
the first one's plus its own normal noise of 2% of that, as one fine-tuning leaves them. What a chunk holds depends on
seed, role, tensor and place alone, so a role can be made again by itself. Memory stays small, whatever the size.
"""

import argparse
import json
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from vlsurgery.surgery.runtime.worker_pool import cores, map_ordered, worker_pool

SHARD_BYTES = 1 << 30
CHUNK = 1 << 22
SPREAD, MOVE = 0.02, 0.02

# Gigabytes -> width, layers, width of the MLP, heads, key-value heads, vocabulary.
# 4.4 is all but nothing beside an embedding and a head of 2.1 GB each.
MODELS = {
    2.2: (2048, 22, 5632, 32, 4, 32000),
    4.4: (4096, 1, 1024, 32, 8, 262144),
    13.5: (4096, 32, 11008, 32, 32, 32000),
}

Shape = tuple[int, ...]
Piece = tuple[str, int, int, bool]  # tensor, first entry, last entry, whether it is a norm


def config(gb: float) -> dict[str, object]:
    width, layers, inner, heads, kv_heads, vocabulary = MODELS[gb]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }


def shapes(gb: float) -> dict[str, Shape]:
    width, layers, inner, heads, kv_heads, vocabulary = MODELS[gb]
    narrow = width // heads * kv_heads
    found: dict[str, Shape] = {"model.embed_tokens.weight": (vocabulary, width)}
    for layer in range(layers):
        stem = f"model.layers.{layer}."
        found |= {f"{stem}self_attn.{part}_proj.weight": (width, width) for part in "qo"}
        found |= {f"{stem}self_attn.{part}_proj.weight": (narrow, width) for part in "kv"}
        found |= {f"{stem}mlp.{part}_proj.weight": (inner, width) for part in ("gate", "up")}
        found[f"{stem}mlp.down_proj.weight"] = (width, inner)
        found |= {f"{stem}{part}_layernorm.weight": (width,) for part in ("input", "post_attention")}
    return found | {"model.norm.weight": (width,), "lm_head.weight": (vocabulary, width)}


def deal(sizes: dict[str, Shape]) -> list[list[str]]:
    """Names of the tensors of each shard, in order."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, shape in sizes.items():
        nbytes = 2 * torch.Size(shape).numel()
        if filled and filled + nbytes > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += nbytes
    return shards


def pieces(name: str, shape: Shape) -> Iterator[Piece]:
    count = torch.Size(shape).numel()
    for start in range(0, count, CHUNK):
        yield name, start, min(start + CHUNK, count), len(shape) == 1


def normal(seed: int, role: str, piece: Piece) -> torch.Tensor:
    name, start, stop, _ = piece
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{role}/{name}/{start}".encode()))
    return torch.randn(stop - start, generator=generator)


def entries(seed: int, roles: Sequence[str], piece: Piece) -> memoryview:
    """The bytes of a chunk of the last of `roles`, which grew from the first."""
    start = normal(seed, roles[0], piece).mul_(SPREAD).add_(float(piece[3])).bfloat16()
    if roles[-1] != roles[0]:
        start = (start.float() + normal(seed, roles[-1], piece).mul_(SPREAD * MOVE)).bfloat16()
    return start.view(torch.uint8).numpy().data


def header(names: Sequence[str], sizes: dict[str, Shape]) -> bytes:
    described: dict[str, object] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name in names:
        after = place + 2 * torch.Size(sizes[name]).numel()
        described[name] = {"dtype": "BF16", "shape": sizes[name], "data_offsets": [place, after]}
        place = after
    text = json.dumps(described).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def make(folder: Path, gb: float, roles: Sequence[str], seed: int = 0) -> None:
    """Write a checkpoint of each role into `folder`; those that are there already are left as they are."""
    sizes = shapes(gb)
    shards = deal(sizes)
    for role in roles:
        path = folder / role
        if (path / "model.safetensors.index.json").exists():
            continue
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(config(gb), indent=1))
        weight_map: dict[str, str] = {}
        for number, names in enumerate(shards, 1):
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
            weight_map |= dict.fromkeys(names, file)
            work = (piece for name in names for piece in pieces(name, sizes[name]))
            with (path / file).open("wb") as out, worker_pool() as pool:
                out.write(header(names, sizes))
                for data in map_ordered(pool, partial(entries, seed, (roles[0], role)), work, cores() + 1):
                    out.write(data)
        total = sum(2 * torch.Size(shape).numel() for shape in sizes.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gb", type=float, default=2.2, choices=sorted(MODELS))
    parser.add_argument("--roles", default="base,adapted,safety")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    make(options.folder, options.gb, options.roles.split(","), options.seed)


if __name__ == "__main__":
    main()
