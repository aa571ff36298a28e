"""How many architectures take an adapter: random LoRAs on tiny vision-language models, folded and merged by PEFT.

    python tests/benchmarks/adapters.py [--only NAME ...] [--seed N]

Each model is written in both naming layouts and adapted in all its linear modules and experts, or, with a seed, in two
kinds of linear modules drawn at random, which leaves fewer names to tell what is what. A class is right when every
tensor equals PEFT's merge to 1e-6, refused when the adapter found no clear place, and wrong otherwise.
"""

import argparse
import logging
import random
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from architectures import classes, grown, tiny, without_timm
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import nn

from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.errors import CheckpointError

LAYOUTS = {"legacy": True, "native": False}
CLOSE = 1e-6

# What transformers and PEFT raise for models that can't be made so small, or adapted at all.
UNFIT = (ValueError, TypeError, KeyError, AttributeError, RuntimeError, NotImplementedError, StrictDataclassError)


def settings(model: nn.Module, seed: int | None) -> dict[str, Any]:
    """What is adapted: everything, or two kinds of modules."""
    if seed is not None:
        kinds = {name.split(".")[-1] for name, module in model.named_modules() if isinstance(module, nn.Linear)}
        kinds -= {"lm_head"}
        return {"target_modules": random.Random(seed).sample(sorted(kinds), min(2, len(kinds)))}
    experts = {
        name.rpartition(".")[2]
        for name, tensor in model.named_parameters()
        if ".experts." in name and tensor.dim() == 3
    }
    targets = {"target_parameters": [f"experts.{name}" for name in sorted(experts)]} if experts else {}
    return {"target_modules": "all-linear", **targets}


def train(name: str, class_name: str, root: Path, seed: int | None) -> None:
    """Write base, adapter and PEFT's merge, base and merge in both layouts."""
    import peft
    import transformers

    with without_timm():
        model = getattr(transformers, class_name)(grown(tiny(name))).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.3)
    for layout, original in LAYOUTS.items():
        model.save_pretrained(root / f"base-{layout}", save_original_format=original)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, **settings(model, seed)))
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if "lora_" in key:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    adapted.save_pretrained(root / "adapter", save_embedding_layers=False)
    merged = adapted.merge_and_unload()
    for layout, original in LAYOUTS.items():
        merged.save_pretrained(root / f"merged-{layout}", save_original_format=original)


def verdict(root: Path, layout: str) -> str:
    """What became of the adapter in one layout."""
    try:
        folded = Checkpoint.open(f"{root / f'base-{layout}'}+{root / 'adapter'}")
    except CheckpointError as error:
        return f"refused: {str(error).partition('safetensors: ')[2]}"
    merged = load_file(root / f"merged-{layout}" / "model.safetensors")
    if set(folded) != set(merged):
        return f"WRONG: {sorted(set(folded) ^ set(merged))[0]} is in one alone"
    far = {name: distance(folded[name].load(), tensor) for name, tensor in merged.items()}
    worst = max(far, key=lambda name: far[name])
    return "right" if far[worst] <= CLOSE else f"WRONG: {worst} is off by {far[worst]:.1e}"


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one.double() - other.double()).norm() / other.double().norm().clamp_min(1e-12))


def main() -> None:
    import transformers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--seed", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    tally: Counter[str] = Counter()
    for name, class_name in classes().items():
        if options.only and name not in options.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            try:
                train(name, class_name, Path(folder), options.seed)
            except UNFIT as error:
                print(f"{name:26} not made: {type(error).__name__}: {' '.join(str(error).split())[:100]}", flush=True)
                continue
            for layout in LAYOUTS:
                found = verdict(Path(folder), layout)
                tally[found.partition(":")[0]] += 1
                print(f"{name:26} {layout:7} {found[:140]}", flush=True)
    print(dict(tally))


if __name__ == "__main__":
    main()
