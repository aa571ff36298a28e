"""Whether a case and a merge survive being killed at any moment.

Run it as `python tests/benchmarks/kills.py`. It runs diff and merge on three small checkpoints with the program itself,
kills it with SIGKILL at a random moment, looks at what is there, gives the same command again, and compares every file
with an uninterrupted run. Every second time a former result lies in the way: until the new one is complete it must stay
as it was.
"""

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vlsurgery.cli.workflow.case import Case
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.digests import file_digest

HIDDEN, LAYERS, VOCABULARY = 64, 4, 256
CONFIG = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
}
ROLES = ("base", "adapted", "safety")
PROGRAM = (sys.executable, "-P", "-m", "vlsurgery.cli.main")


@dataclass(frozen=True)
class Step:
    """A command and what it writes. former: arguments of the same command with another result.

    check: raises where what a killed run left under the target's name can't be read.
    """

    name: str
    arguments: list[str]
    former: list[str]
    target: str
    check: Callable[[Path], object]


def weights(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        stem = f"model.layers.{layer}"
        shapes |= {f"{stem}.self_attn.{part}_proj.weight": (HIDDEN, HIDDEN) for part in "qkvo"}
        shapes |= {f"{stem}.mlp.{part}_proj.weight": (96, HIDDEN) for part in ("gate", "up")}
        shapes[f"{stem}.mlp.down_proj.weight"] = (HIDDEN, 96)
        shapes |= {f"{stem}.{norm}_layernorm.weight": (HIDDEN,) for norm in ("input", "post_attention")}
    shapes |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def make_trio(folder: Path) -> list[str]:
    """Three checkpoints of one family in `folder`; their paths."""
    for seed, role in enumerate(ROLES):
        path = folder / role
        path.mkdir()
        held = weights(0)
        for name, tensor in weights(seed).items():
            held[name] = held[name] + 0.05 * tensor
        save_file(held, path / "model.safetensors", metadata={"format": "pt"})
        (path / "config.json").write_text(json.dumps(CONFIG))
    return [str(folder / role) for role in ROLES]


def steps(trio: list[str]) -> list[Step]:
    base, adapted, safety = trio
    merge = ["merge", "--method", "linear", base, adapted, "-o", "merged"]
    return [
        Step("diff", ["diff", *trio, "--case", "case"], ["diff", base, adapted, "--case", "case"], "case", Case.open),
        Step("merge", merge, [*merge[:3], base, safety, *merge[5:]], "merged", Checkpoint.open),
    ]


def command(step: Step, arguments: list[str]) -> list[str]:
    renewed = ["--new"] if step.name == "diff" else []
    return [*PROGRAM, *arguments, *renewed, "--quiet"]


def run(step: Step, arguments: list[str], folder: Path) -> float:
    """A whole run; the seconds that it took."""
    start = time.perf_counter()
    done = subprocess.run(command(step, arguments), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{step.name}, not killed, ended with {done.returncode}: {done.stderr}")
    return time.perf_counter() - start


def kill(step: Step, folder: Path, moment: float) -> bool:
    """Kill a run after so many seconds; whether it was still at work."""
    process = subprocess.Popen(
        command(step, step.arguments), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
    return process.wait() == -signal.SIGKILL


def digests(folder: Path) -> dict[str, str]:
    """The files of a result and what is in them, less the times at which they were made."""
    found = {str(path.relative_to(folder)): file_digest(path) for path in folder.rglob("*") if path.is_file()}
    if "case.json" in found:
        found["case.json"] = str(sorted(json.loads((folder / "case.json").read_text())["checkpoints"]))
    if "diff.json" in found:
        found["diff.json"] = json.dumps(json.loads((folder / "diff.json").read_text()) | {"created": None})
    return found


def survives(step: Step, kills: int, folder: Path, chance: random.Random) -> bool:
    """Kill and go on, again and again; prints what came of it. Whether all went well."""
    target, here = folder / "here" / step.target, folder / "here"
    here.mkdir()
    run(step, step.former, here)
    former = shutil.copytree(target, folder / f"former-{step.name}")
    shutil.rmtree(target)
    seconds = run(step, step.arguments, here)
    expected = digests(target)
    killed = readable = same = 0
    for number in range(kills):
        shutil.rmtree(here)
        here.mkdir()
        if number % 2:
            shutil.copytree(former, target)
        # The first half of a run is the start of Python, with nothing written yet.
        killed += kill(step, here, chance.uniform(0.4 * seconds, seconds))
        readable += not target.exists() or step.check(target) is not None
        run(step, step.arguments, here)
        same += digests(target) == expected
    print(f"{step.name}: killed at work {killed} of {kills}; what was left could be read {readable} times; the same")
    print(f"  command then gave the files of an uninterrupted run {same} times", flush=True)
    shutil.rmtree(here)
    return readable == same == kills


def attack(kills: int, seed: int, folder: Path) -> bool:
    """So many kills of each step, in `folder`; whether every one of them was survived."""
    chance = random.Random(seed)
    return all(survives(step, kills, folder, chance) for step in steps(make_trio(folder)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of each step")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(0 if attack(options.kills, options.seed, Path(name)) else 1)


if __name__ == "__main__":
    main()
