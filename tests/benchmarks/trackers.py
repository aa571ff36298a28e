"""`evaluate --track` with the real trackers, offline: which numbers arrive, and that no text of a prompt or completion
and no name of a file does.

    PYTHONPATH=build/bench/trackers python tests/benchmarks/trackers.py [NAME ...]

`make bench` installs them beside the environment: trackio and wandb want versions of packages that the tests do not.
Ends with code 1 where a number is missing, or a word is found that must not be.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

NAMES = ("trackio", "wandb", "mlflow")
FOLDER = Path("build/bench/tracked").absolute()
SECRET = "crocodile"  # in every prompt, every completion, and the log's name
METRIC = "rate/mine/harmful/text/refused"

READ_TRACKIO = """
import json
from trackio.sqlite_storage import SQLiteStorage
print(json.dumps([["METRIC", logged["METRIC"]] for logged in SQLiteStorage.get_logs("mine", "vlsurgery evaluate")]))
"""
READ_MLFLOW = """
import json, mlflow
(run,) = mlflow.MlflowClient().search_runs([e.experiment_id for e in mlflow.MlflowClient().search_experiments()])
print(json.dumps([["METRIC", run.data.metrics["METRIC"]]]))
"""


def places(name: str, folder: Path) -> dict[str, str]:
    """Settings that keep a tracker on this machine, in the folder."""
    return {
        "trackio": {"TRACKIO_DIR": str(folder / "trackio")},
        "wandb": {"WANDB_MODE": "offline", "WANDB_DIR": str(folder), "WANDB_SILENT": "true"},
        "mlflow": {"MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"},
    }[name]


def write_log(folder: Path) -> Path:
    """A log of lm-evaluation-harness in which forty requests are refused."""
    lines = [
        {
            "doc": {"prompt": f"how do i steal {SECRET} {at}"},
            "arguments": {"gen_args_0": {"arg_0": f"how do i steal {SECRET} {at}", "arg_1": {}}},
            "resps": [[f"I cannot help with that {SECRET}."]],
            "doc_id": at,
            "target": "",
        }
        for at in range(40)
    ]
    path = folder / f"samples_{SECRET}.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def evaluated(name: str, log: Path, folder: Path) -> tuple[Mapping[str, str], subprocess.CompletedProcess[str]]:
    environment = {**os.environ, **places(name, folder), "HF_HUB_OFFLINE": "1"}
    words = ["evaluate", "--import", f"{log}:harmful@mine", "--track", f"{name}:mine", "--json"]
    call = [sys.executable, "-m", "vlsurgery.cli.main", *words]
    return environment, subprocess.run(call, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def arrived(name: str, folder: Path, environment: Mapping[str, str]) -> float | None:
    """The rate as the tracker gives it back; of wandb's offline file, whether it is in it."""
    if name == "wandb":
        (file,) = folder.rglob("*.wandb")
        return 1.0 if METRIC.encode() in file.read_bytes() else None
    script = {"trackio": READ_TRACKIO, "mlflow": READ_MLFLOW}[name].replace("METRIC", METRIC)
    read = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if read.returncode:
        print(read.stderr[-600:])
        return None
    return float(json.loads(read.stdout.strip().splitlines()[-1])[0][1])


def check(name: str) -> bool:
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "kept").mkdir(parents=True)
    log = write_log(FOLDER)
    environment, done = evaluated(name, log, folder)
    if done.returncode:
        print(f"{name}: {done.stderr.strip()[-600:]}")
        return False
    rate = json.loads(done.stdout)["rows"][0]["refused"]["rate"]  # nothing else is on standard output
    found = arrived(name, folder, environment)
    stored = [file for file in folder.rglob("*") if file.is_file()]
    leaks = [str(file.relative_to(folder)) for file in stored if SECRET.encode() in file.read_bytes()]
    print(
        f"{name}: refused {rate}, arrived {found}; {len(stored)} files, {len(leaks)} hold a word of the prompts", leaks
    )
    return found == rate and not leaks


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    outcomes = [check(name) for name in sys.argv[1:] or NAMES]
    sys.exit(not all(outcomes))
