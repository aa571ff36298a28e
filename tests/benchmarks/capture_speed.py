"""Capture at all layers against the decoder's bare forward without its head: same batches, same dtype.

python tests/benchmarks/capture_speed.py DIR: a LLaVA on SmolLM2-135M's shape, random weights, built in DIR once; about
2,300 tokens. Prints medians of processor seconds of alternating runs and their ratio, which is to be
1.05 at most: a busy machine makes wall clocks lie.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import torch
from running_models import SMOLLM2, build, working

from vlsurgery.probes.activations import capture
from vlsurgery.probes.models import Loader, load
from vlsurgery.surgery.checkpoint import Checkpoint

TOKENS = 2300
BATCH = 32  # prompts in one, of both


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--runs", type=int, default=7)
    given = arguments.parse_args()
    build(given.folder, SMOLLM2)
    for dtype in ("float32", "bfloat16"):
        chat = load(Checkpoint.open(given.folder / "adapted"), Loader(dtype=dtype))
        prompts = [p for p, _ in working(chat.tokenizer, 400).keep if p.modality == "text"]
        encoded, total = [], 0
        for item in chat.encode(prompts):
            if total < TOKENS:
                encoded.append(item)
                total += len(item.ids)
        batches = list(chat.batches(encoded, size=BATCH))
        decoder = chat.model.model.language_model

        def bare(decoder=decoder, batches=batches) -> None:
            with torch.no_grad():
                for batch in batches:
                    decoder(**batch.inputs, use_cache=False)

        def ours(chat=chat, encoded=encoded) -> None:
            for _ in capture(chat, encoded, BATCH):
                pass

        seconds: dict[str, list[float]] = {"bare": [], "capture": []}
        for _ in range(given.runs + 1):
            for name, run in (("bare", bare), ("capture", ours)):
                began = time.process_time()
                run()
                seconds[name].append(time.process_time() - began)
        one, other = (median(seconds[name][1:]) for name in ("bare", "capture"))
        print(
            f"{dtype:9} {total} tokens in {len(batches)} batches: bare {one:.2f} s, capture {other:.2f} s, "
            f"ratio {other / one:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
