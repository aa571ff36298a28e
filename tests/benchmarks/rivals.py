"""Other tools, each in an environment of its own."""

import subprocess
import venv
from pathlib import Path

from platformdirs import user_cache_path


def mergekit_python(folder: Path | None) -> Path:
    """The interpreter of an environment that has mergekit 0.1.5, made where there is none."""
    return _python(folder, "mergekit-0.1.5", "mergekit==0.1.5")


def interpreters_python(folder: Path | None) -> Path:
    """The interpreter of an environment that has TransformerLens 4.3.0 and nnsight 0.8.1, made where there is none."""
    wanted = ("transformer-lens==4.3.0", "nnsight==0.8.1", "torch", "transformers")
    return _python(folder, "transformer-lens-4.3.0-nnsight-0.8.1", *wanted)


def optimisers_python(folder: Path | None) -> Path:
    """The interpreter of an environment that has optuna 5.0.0 and cma 4.5.0, made where there is none."""
    return _python(folder, "optuna-5.0.0-cma-4.5.0", "optuna==5.0.0", "cma==4.5.0")


def _python(folder: Path | None, name: str, *packages: str) -> Path:
    place = folder or user_cache_path("vlsurgery") / name
    python = place / "bin" / "python"
    if not python.exists():
        print(f"making {place}", flush=True)
        venv.create(place, with_pip=True)
        constraints = Path(__file__).parents[2] / "constraints.txt"
        wanted = [str(python), "-m", "pip", "install", "-q", "-c", str(constraints), *packages]
        subprocess.run(wanted, check=True)
    return python
