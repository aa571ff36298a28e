"""Refusal directions of one text model by this tree, TransformerLens and nnsight: processor seconds and peak memory.

python tests/benchmarks/rival_capture.py DIR: DIR holds a text model; without a model it is built on SmolLM2-135M's
shape, with random weights. --rivals: the environment of the other two, made where there is none. All read the same
tokens, in the same batches, in bfloat16, at the same positions, in processes of their own with one thread, in turn;
printed are medians of a run of all prompts, and ratios to ours.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

# [B, positions, layers, hidden] float32 residual streams of token ids, a mask, and the rows and columns to read.
Run = Callable[..., Any]
TOOLS = ("ours", "transformer_lens", "nnsight")
BATCH = 32
RUNS = 3  # of directions in a process, after one that warms up
ROUNDS = 3  # of processes


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--rivals", type=Path)
    arguments.add_argument("--prompts", type=int, default=128)
    arguments.add_argument("--measure", choices=TOOLS)
    arguments.add_argument("--tokens", type=Path)
    given = arguments.parse_args()
    if given.measure:
        print(json.dumps(measured(given.folder, given.measure, json.loads(given.tokens.read_text()))))
        return
    from rivals import interpreters_python

    with tempfile.TemporaryDirectory() as scratch:
        if not (given.folder / "config.json").exists():
            given.folder = built(given.folder)
        compared(given.folder, interpreters_python(given.rivals), given.prompts, Path(scratch))


def built(folder: Path) -> Path:
    """A text model of SmolLM2-135M's shape with random weights: the base of a trio in `folder`."""
    from running_models import SMOLLM2, build

    build(folder, SMOLLM2)
    return folder / "base"


def compared(folder: Path, rivals: Path, count: int, scratch: Path) -> None:
    """Run every tool in turn and print what it took, and how far its directions are from ours."""
    tokens = scratch / "tokens.json"
    tokens.write_text(json.dumps(encoded(folder, count)))
    pythons = {"ours": sys.executable} | dict.fromkeys(TOOLS[1:], str(rivals))
    found: dict[str, list[dict[str, Any]]] = {tool: [] for tool in pythons}
    for _ in range(ROUNDS):
        for tool, python in pythons.items():
            command = [python, __file__, str(folder), "--measure", tool, "--tokens", str(tokens)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
            out = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[tool].append(json.loads(out.splitlines()[-1]))
    ours = found["ours"]
    for tool, runs in found.items():
        seconds, peak = (median(run[key] for run in runs) for key in ("seconds", "peak"))
        slower, larger = (
            value / median(run[key] for run in ours) for key, value in (("seconds", seconds), ("peak", peak))
        )
        cosine = least_cosine(runs[0]["directions"], ours[0]["directions"])
        print(
            f"{tool:16} {seconds:6.2f} s, {slower:.2f} times ours; peak {peak:5.0f} MB, {larger:.2f} times ours; "
            f"least cosine with our directions {cosine:.4f}",
            flush=True,
        )


def encoded(folder: Path, count: int) -> dict[str, Any]:
    """Harmful and harmless prompts as padded batches of token ids, under the model's own template."""
    from vlsurgery.probes.activations import position_names
    from vlsurgery.probes.contrasts import contrast, is_harmful
    from vlsurgery.probes.models import Loader, load
    from vlsurgery.probes.prompts.english import english_prompts
    from vlsurgery.surgery.checkpoint import Checkpoint

    chat = load(Checkpoint.open(folder), Loader(dtype="bfloat16"))
    asked = contrast(english_prompts(), "fit", "text")
    sides = [[prompt for prompt in asked if is_harmful(prompt) == side] for side in (True, False)]
    asked = [prompt for pair in zip(*sides, strict=False) for prompt in pair][:count]
    items = chat.encode(asked)
    batches = [
        {
            "ids": batch.inputs["input_ids"].tolist(),
            "mask": batch.inputs["attention_mask"].tolist(),
            "lengths": batch.lengths.tolist(),
            "harmful": [is_harmful(asked[at]) for at in batch.index],
        }
        for batch in chat.batches(items, size=BATCH)
    ]
    return {"batches": batches, "positions": len(position_names(items))}


def measured(folder: Path, tool: str, tokens: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a run, peak memory in MB, and the directions, [positions, layers, hidden]."""
    import torch

    torch.set_num_threads(1)
    run = {"ours": by_ours, "transformer_lens": by_transformer_lens, "nnsight": by_nnsight}[tool](folder)
    seconds = []
    for _ in range(RUNS + 1):
        began = time.process_time()
        directions = difference(tokens, run)
        seconds.append(time.process_time() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    return {"seconds": median(seconds[1:]), "peak": peak, "directions": directions.tolist()}


def difference(tokens: dict[str, Any], run: Run) -> Any:
    """Mean of harmful less mean of harmless residual streams, [positions, layers, hidden] float64."""
    import torch

    sums, counts = {True: 0, False: 0}, {True: 0, False: 0}
    for batch in tokens["batches"]:
        ids, mask = (torch.tensor(batch[key]) for key in ("ids", "mask"))
        columns = torch.tensor(batch["lengths"])[:, None] + torch.arange(-tokens["positions"], 0)
        harmful = torch.tensor(batch["harmful"])
        values = run(ids, mask, torch.arange(len(ids))[:, None].expand_as(columns), columns)
        for side in (True, False):
            sums[side] = sums[side] + values[harmful == side].double().sum(0)
            counts[side] += int((harmful == side).sum())
    return sums[True] / counts[True] - sums[False] / counts[False]


def by_ours(folder: Path) -> Run:
    """This tree's own recording."""
    import torch

    from vlsurgery.probes.activations import recording
    from vlsurgery.probes.models import Loader, load
    from vlsurgery.probes.models.head import headless
    from vlsurgery.surgery.checkpoint import Checkpoint

    chat = load(Checkpoint.open(folder), Loader(dtype="bfloat16"))

    def run(ids, mask, rows, columns):
        with torch.no_grad(), headless(chat), recording(chat.blocks, rows, columns) as states:
            chat.model(input_ids=ids, attention_mask=mask, use_cache=False)
        return torch.stack(states, dim=2)

    return run


def by_transformer_lens(folder: Path) -> Run:
    """TransformerLens: its cache of the residual streams, cut to the positions."""
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    model = TransformerBridge.boot_transformers(str(folder), dtype=torch.bfloat16, device="cpu")
    layers = model.cfg.n_layers
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(layers)]

    def run(ids, mask, rows, columns):
        with torch.no_grad():
            _, cache = model.run_with_cache(
                ids, attention_mask=mask, names_filter=lambda name: name in names, return_type=None
            )
        return torch.stack([cache[name][rows, columns].float() for name in names], dim=2)

    return run


def by_nnsight(folder: Path) -> Run:
    """nnsight: the decoder blocks' outputs at the positions, saved from a trace that stops there."""
    import torch
    from nnsight import LanguageModel, save

    model = LanguageModel(str(folder), device_map="cpu", dtype=torch.bfloat16, dispatch=True)
    last = len(model.model.layers) - 1

    def run(ids, mask, rows, columns):
        with torch.no_grad(), model.trace({"input_ids": ids, "attention_mask": mask}) as tracer:
            kept = save([])
            for layer in range(last + 1):
                output = model.model.layers[layer].output
                hidden = output[0] if isinstance(output, tuple) else output
                kept.append(hidden[rows, columns].float())
            tracer.stop()
        return torch.stack(list(kept), dim=2)

    return run


def least_cosine(one: Any, other: Any) -> float:
    import torch

    return float(torch.cosine_similarity(torch.tensor(one), torch.tensor(other), dim=-1).min())


if __name__ == "__main__":
    main()
