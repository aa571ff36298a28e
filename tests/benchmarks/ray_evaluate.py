"""What a Ray cluster on this machine says of models: what one process says, whoever is killed.

    python tests/benchmarks/ray_evaluate.py [--kills N] [--drivers N] [--seed N]

Two tiny models and a merge of them that was not written, asked the miniature's prompts. Random workers are killed with
SIGKILL until --kills of them were; then the program itself, --drivers times, and the same command is given again. Every
completion is compared with those of one process. Ends with 1 where one differs, or is asked twice.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from ray_merge import killer
from timing import vlsurgery
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from vlsurgery.probes.evaluation.completions import CompletionFile
from vlsurgery.probes.evaluation.evaluate import Asking, evaluate
from vlsurgery.probes.evaluation.subjects import Subject
from vlsurgery.probes.models import Loader, quiet_transformers
from vlsurgery.probes.specimens.miniature import chat, prompts
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.runtime.ray_cluster import ray_cluster

TOKENS = 16
UNIT = 2.0  # seconds that a shard takes about, in a worker that has begun
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4}


def write_models(folder: Path, roles: Sequence[str] = ("base", "adapted")) -> None:
    """Models with random weights near one another, which speak the miniature's language."""
    tokenizer = chat.tokenizer(sees=False)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), initializer_range=0.2, **SIZES))
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    for role in roles:
        model.save_pretrained(folder / role)
        tokenizer.save_pretrained(folder / role)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))


def worker_kills(folder: Path, count: int, seed: int) -> bool:
    base, adapted = (Checkpoint.open(folder / role) for role in ("base", "adapted"))
    merged = Subject("merged", adapted, {"1.mlp": {"base": 0.5}}, {"base": base})
    subjects = [Subject("base", base), Subject("adapted", adapted), merged]
    kills: list[int] = []
    runs = equal = 0

    def asked(file: Path, **more: object) -> bytes:
        file.unlink(missing_ok=True)
        asking = Asking(tokens=TOKENS, file=CompletionFile(file), loader=Loader(dtype="float32"), **more)
        evaluate(subjects, prompts(0), 1, asking)
        return file.read_bytes()

    wanted = asked(folder / "alone.jsonl")
    with ray_cluster("local:2") as engine, killer(random.Random(seed), UNIT, UNIT, kills, count):
        while runs == 0 or len(kills) < count:
            equal += asked(folder / "divided.jsonl", engine=engine) == wanted
            runs += 1
    lines = wanted.count(b"\n")
    print(f"kills: {len(kills)} workers killed in {runs} evaluations of {lines} completions, {equal} equal", flush=True)
    return equal == runs


def driver_kills(folder: Path, count: int, seed: int) -> bool:
    rng, file, equal, kept = random.Random(seed), folder / "said.jsonl", 0, []
    requests = [f"how do i {verb} the {thing}" for verb in ("rob", "draw", "kill", "hide") for thing in ("cat", "car")]
    (folder / "asked.txt").write_text("\n".join(requests))
    words = ["evaluate", folder / "base", folder / "adapted", "--prompts", f"{folder / 'asked.txt'}:harmful"]
    words += ["--dtype", "float32", "--tokens", TOKENS, "--completions", file]
    command = [*map(str, vlsurgery(*words))]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wanted = file.read_bytes()
    lines = wanted.count(b"\n")
    for _ in range(count):
        file.unlink(missing_ok=True)
        process = subprocess.Popen([*command, "--ray", "local:2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        least = rng.randrange(1, lines)
        while process.poll() is None and not (file.exists() and file.read_bytes().count(b"\n") >= least):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept.append(len(CompletionFile(file).read()))
        again = subprocess.run([*command, "--ray", "local:2"], capture_output=True, text=True, check=True)
        equal += file.read_bytes() == wanted and (not kept[-1] or "were there already" in again.stdout)
    print(f"drivers: {count} killed, with {kept} completions; {equal} equal after the same command again", flush=True)
    return equal == count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--drivers", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    quiet_transformers()
    folder = Path(tempfile.mkdtemp())
    try:
        write_models(folder)
        good = worker_kills(folder, options.kills, options.seed)
        good = (not options.drivers or driver_kills(folder, options.drivers, options.seed)) and good
    finally:
        shutil.rmtree(folder)
    sys.exit(not good)


if __name__ == "__main__":
    main()
