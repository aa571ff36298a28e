"""Whether mergekit 0.1.5 and we make the same of one YAML, and mergekit of ours.

Run it as `python tests/benchmarks/mergekit_agreement.py`. mergekit is put into an environment of its own, in the user's
cache, or taken from `--venv DIR`. Small Llamas (a base and three children) are merged by both, in float32 and from
bfloat16 weights with `dtype: float32`.

For methods without chance it prints the norm of the difference over the norm of mergekit's result, which must be at
most 1e-6: as mergekit is, with sorting made stable, and of the YAML that we write of theirs. bfloat16 deltas have many
entries of one magnitude; which of them mergekit keeps is up to an unstable sort, so that there the first figure does
not count for methods that cut. For methods with chance it prints the share of entries that were kept, how far along the
delta the merge went, and the share kept in the larger half of each row; they must agree within 5 standard errors.
"""

import argparse
import contextlib
import io
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from rivals import mergekit_python
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlsurgery.cli.main import app
from vlsurgery.surgery.mergekit import load_recipe, write_mergekit

LIMIT, SIGMAS = 1e-6, 5.0
WIDTH, INNER, LAYERS, VOCAB, CHILDREN = 64, 160, 6, 256, ("x", "y", "z")
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": WIDTH, "intermediate_size": INNER,
    "num_hidden_layers": LAYERS, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": VOCAB,
    "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
}  # fmt: skip
HEAD = f"{'method':18}{'variant':20}{'weights':10}"
CUTTING = ("ties", "breadcrumbs", "breadcrumbs_ties")
WITH_CHANCE = ("dare_linear", "dare_ties", "della_linear", "della")

# Reads orders as lines of `FILE OUT` and runs mergekit's own command for each, so that its imports are paid for once.
DRIVER = """
import functools, sys
import torch
from mergekit.scripts.run_yaml import main
if sys.argv[1] == "stable":
    torch.argsort = functools.partial(torch.argsort, stable=True)
    torch.sort = functools.partial(torch.sort, stable=True)
for line in sys.stdin:
    file, out = line.rstrip("\\n").split("\\t")
    main([file, out, "--quiet", "--random-seed", "7"], standalone_mode=False)
"""


@dataclass(frozen=True)
class Order:
    """A merge to compare. weights: what each child has; None for methods that know no weights."""

    method: str
    variant: str
    each: dict[str, Any] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)
    children: tuple[str, ...] = CHILDREN
    sliced: bool = False

    def yaml(self, folder: Path) -> dict[str, Any]:
        """each: parameter -> value per child, or one for all."""
        base = {"model": str(folder / "base")}
        models = [
            {
                "model": str(folder / child),
                "parameters": {
                    key: value[place] if isinstance(value, tuple) else value for key, value in self.each.items()
                },
            }
            for place, child in enumerate(self.children)
        ]
        data: dict[str, Any] = {"merge_method": self.method, "dtype": "float32", "parameters": dict(self.shared)}
        if self.method != "linear":
            data["base_model"] = base["model"]
        if not self.sliced:
            return data | {"models": models}
        members = models if self.method == "linear" else [base, *models]
        cuts = ((0, 2), (2, LAYERS))
        return data | {
            "slices": [{"sources": [entry | {"layer_range": list(cut)} for entry in members]} for cut in cuts]
        }


UP, DOWN, HILL = [0.1, 0.9], [1.0, 0.2], [0.2, 1.0, 0.3]
PARTS = [{"filter": "self_attn", "value": HILL}, {"filter": "mlp", "value": 0.7}, {"filter": "lm_head", "value": 0.1}]


def plain_orders() -> Iterator[Order]:
    """Methods without chance."""
    weights = (0.5, 0.3, 0.4)
    filtered = ([*PARTS, {"value": 0.4}], 0.3, UP)
    for method, density in (
        ("linear", {}), ("task_arithmetic", {}), ("ties", {"density": (0.3, 0.5, 0.8)}),
        ("breadcrumbs", {"density": (0.6, 0.8, 0.9), "gamma": (0.02, 0.01, 0.1)}),
        ("breadcrumbs_ties", {"density": (0.6, 0.8, 0.9), "gamma": (0.02, 0.01, 0.1)}),
    ):  # fmt: skip
        yield Order(method, "weights", {"weight": weights, **density})
        yield Order(method, "defaults", {"weight": weights})
        yield Order(method, "gradients", {"weight": (UP, DOWN, HILL), **density})
        yield Order(method, "filters", {"weight": filtered, **density})
        yield Order(method, "slices", {"weight": (UP, 0.5, HILL), **density}, sliced=True)
        for normalize in (True, False):
            yield Order(method, f"normalize {normalize}", {"weight": weights, **density}, {"normalize": normalize})
        if density:
            spread = {"density": ([0.2, 1.0], [{"filter": "mlp", "value": 0.3}, {"value": 0.9}], 0.05)}
            yield Order(method, "density by filter", {"weight": weights, **density, **spread})
        if method != "linear":
            yield Order(method, "one child", {"weight": 0.6, **density}, children=("x",))
            yield Order(method, "lambda", {"weight": weights, **density}, {"lambda": 0.7, "int8_mask": True})
            yield Order(method, "lambda gradient", {"weight": weights, **density}, {"lambda": [0.5, 1.5]})
    for t in (0.0, 0.3, 1.0, HILL, [*PARTS, {"value": 0.5}]):
        yield Order("slerp", f"t {'filters' if isinstance(t, list) and t is not HILL else t}", {}, {"t": t}, ("x",))
    yield Order("slerp", "slices", {}, {"t": HILL}, ("x",), sliced=True)
    yield Order("model_stock", "three")
    yield Order("model_stock", "two", children=("x", "y"))
    yield Order("model_stock", "slices", sliced=True)


def chance_orders() -> Iterator[Order]:
    """Methods with chance, of one child, so that what was kept can be told."""
    for method in WITH_CHANCE:
        for density in (0.2, 0.5, 0.8):
            yield Order(method, f"density {density}", {"weight": 1.0, "density": density}, children=("x",))
        unscaled = {"rescale": False, "normalize": False}
        yield Order(method, "not rescaled", {"weight": 0.6, "density": 0.5}, unscaled, ("x",))


def shapes() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, WIDTH), "model.norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        start = f"model.layers.{layer}."
        found |= {f"{start}self_attn.{part}_proj.weight": (WIDTH, WIDTH) for part in "qo"}
        found |= {f"{start}self_attn.{part}_proj.weight": (WIDTH // 2, WIDTH) for part in "kv"}
        found |= {f"{start}mlp.{part}_proj.weight": (INNER, WIDTH) for part in ("gate", "up")}
        found[f"{start}mlp.down_proj.weight"] = (WIDTH, INNER)
        found |= {f"{start}{part}_layernorm.weight": (WIDTH,) for part in ("input", "post_attention")}
    return found | {"lm_head.weight": (VOCAB, WIDTH)}


def make(folder: Path, dtype: torch.dtype) -> None:
    """A base, and children whose deltas have a part in common, so that their cosines are not those of strangers."""
    generator = torch.Generator().manual_seed(3)

    def drawn(scale: float) -> dict[str, Tensor]:
        return {name: scale * torch.randn(shape, generator=generator) for name, shape in shapes().items()}

    base, common = drawn(0.02), drawn(0.002)
    models = {"base": base}
    for child in CHILDREN:
        own = drawn(0.002)
        models[child] = {name: base[name] + common[name] + own[name] for name in base}
    for name, tensors in models.items():
        (folder / name).mkdir(parents=True)
        stored = json.dumps({**CONFIG, "torch_dtype": str(dtype).removeprefix("torch.")})
        (folder / name / "config.json").write_text(stored)
        save_file({key: tensor.to(dtype) for key, tensor in tensors.items()}, folder / name / "model.safetensors")


def run_mergekit(python: Path, jobs: list[tuple[Path, Path]], sort: str = "as it is") -> None:
    lines = "".join(f"{file}\t{out}\n" for file, out in jobs)
    done = subprocess.run([str(python), "-c", DRIVER, sort], input=lines, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"mergekit failed:\n{done.stderr[-3000:]}")


def run_ours(file: Path, out: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        code = app(["merge", "--recipe", str(file), "-o", str(out), "--quiet"], standalone_mode=False)
    if code:
        sys.exit(f"vlsurgery failed on {file}")


def distance(found: Path, wanted: Path) -> float:
    """Norm of the difference over the norm of what was wanted, over all tensors; infinite where names differ."""
    ours, theirs = load_file(found / "model.safetensors"), tensors_of(wanted)
    if ours.keys() != theirs.keys():
        return math.inf
    square = sum(float((ours[name].double() - theirs[name].double()).square().sum()) for name in theirs)
    return math.sqrt(square / sum(float(tensor.double().square().sum()) for tensor in theirs.values()))


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """mergekit numbers its shards even where there is one."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


@dataclass(frozen=True)
class Kept:
    """What a method with chance left of a delta. share: of its entries. moved: the merged move along the delta, over
    the delta's size. upper: the share kept among the larger half of each row. error: a share's standard deviation."""

    share: float
    moved: float
    upper: float
    error: float

    @property
    def move_error(self) -> float:
        """The standard deviation of `moved`, for entries that are normal: their squares vary by a factor of 3."""
        return math.sqrt(3) * self.error * self.moved / max(self.share, 1e-9)

    @classmethod
    def of(cls, merged: Path, base: Path, child: Path) -> "Kept":
        counts = torch.zeros(3, dtype=torch.float64)
        along = size = 0.0
        start, end, found = tensors_of(base), tensors_of(child), tensors_of(merged)
        for name, tensor in found.items():
            delta, move = end[name].double() - start[name].double(), tensor.double() - start[name].double()
            rows = delta.abs().reshape(-1, delta.shape[-1])
            larger = (rows > rows.median(dim=-1, keepdim=True).values).view_as(delta)
            kept = move != 0
            counts += torch.tensor([delta.numel(), kept.sum(), (kept & larger).sum() / larger.sum() * delta.numel()])
            along, size = along + float((move * delta).sum()), size + float((delta * delta).sum())
        total, some, upper = counts.tolist()
        share = some / total
        return cls(share, along / size, upper / total, math.sqrt(max(share * (1 - share), 1e-12) / total))


def compare_plain(python: Path, folder: Path, dtype: str, only: str | None) -> int:
    """Print a line for each order; the number of those that are over the limit."""
    orders = [order for order in plain_orders() if only in (None, order.method)]
    for place, order in enumerate(orders):
        file = folder / f"{place}.yaml"
        file.write_text(yaml.safe_dump(order.yaml(folder), sort_keys=False))
        (folder / f"{place}-back.yaml").write_text(write_mergekit(load_recipe(file)))
        run_ours(file, folder / f"{place}-ours")
    as_it_is = [(folder / f"{place}.yaml", folder / f"{place}-as-it-is") for place in range(len(orders))]
    run_mergekit(python, as_it_is)
    names = [f"{place}{end}" for place in range(len(orders)) for end in ("", "-back")]
    run_mergekit(python, [(folder / f"{name}.yaml", folder / f"{name}-stable") for name in names], "stable")
    failed = 0
    for place, order in enumerate(orders):
        ours = folder / f"{place}-ours"
        found = [distance(ours, folder / f"{place}{end}") for end in ("-as-it-is", "-stable", "-back-stable")]
        must = found[1:] if dtype == "bfloat16" and order.method in CUTTING else found
        fine = max(must) <= LIMIT
        failed += not fine
        figures = "".join(f"{each:12.2e}" for each in found)
        print(f"{order.method:18}{order.variant:20}{dtype:10}{figures}  {'' if fine else 'OVER'}", flush=True)
    return failed


def compare_chance(python: Path, folder: Path, dtype: str, only: str | None) -> int:
    orders = [order for order in chance_orders() if only in (None, order.method)]
    for place, order in enumerate(orders):
        file = folder / f"chance{place}.yaml"
        file.write_text(yaml.safe_dump(order.yaml(folder), sort_keys=False))
        run_ours(file, folder / f"chance{place}-ours")
    run_mergekit(python, [(folder / f"chance{p}.yaml", folder / f"chance{p}-theirs") for p in range(len(orders))])
    failed = 0
    for place, order in enumerate(orders):
        ours, theirs = (
            Kept.of(folder / f"chance{place}-{whose}", folder / "base", folder / "x") for whose in ("ours", "theirs")
        )
        # Theirs rescales della's delta by one factor, ours each entry by its own, after which the expected move is 1.
        goal = 1.0 if order.method.startswith("della") and order.variant != "not rescaled" else theirs.moved
        fine = (
            abs(ours.share - theirs.share) <= SIGMAS * math.hypot(ours.error, theirs.error)
            and abs(ours.moved - goal) <= SIGMAS * math.hypot(ours.move_error, theirs.move_error)
            and abs(ours.upper - theirs.upper) <= SIGMAS * math.hypot(ours.error, theirs.error) * math.sqrt(2)
        )
        failed += not fine
        pairs = ((ours.share, theirs.share), (ours.moved, theirs.moved), (ours.upper, theirs.upper))
        figures = "".join(f"{one:9.4f}{other:8.4f}" for one, other in pairs)
        print(f"{order.method:18}{order.variant:20}{dtype:10}{figures}  {'' if fine else 'APART'}", flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, help="an environment that has mergekit 0.1.5")
    parser.add_argument("--only", help="one method")
    options = parser.parse_args()
    python = mergekit_python(options.venv)
    failed = 0
    with tempfile.TemporaryDirectory() as root:
        for dtype in (torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            folder = Path(root) / name
            make(folder, dtype)
            print(HEAD + "".join(f"{name:>12}" for name in ("as it is", "stable sort", "our export")))
            failed += compare_plain(python, folder, name, options.only)
            print(HEAD + "".join(f"{name:>9}{'theirs':>8}" for name in ("kept", "moved", "upper")))
            failed += compare_chance(python, folder, name, options.only)
    if failed:
        sys.exit(f"{failed} do not agree")


if __name__ == "__main__":
    main()
