"""Other tools, each in an environment of its own."""

import subprocess
import venv
from pathlib import Path

from platformdirs import user_cache_path


def mergekit_python(folder: Path | None) -> Path:
    """The interpreter of an environment that has mergekit 0.1.5, made where there is none."""
    place = folder or user_cache_path("vlsurgery") / "mergekit-0.1.5"
    python = place / "bin" / "python"
    if not python.exists():
        print(f"making {place}", flush=True)
        venv.create(place, with_pip=True)
        constraints = Path(__file__).parents[2] / "constraints.txt"
        wanted = [str(python), "-m", "pip", "install", "-q", "-c", str(constraints), "mergekit==0.1.5"]
        subprocess.run(wanted, check=True)
    return python
