"""`--verify` says whether a merge is as it was written."""

import json
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

from vlsurgery.surgery.checkpoint.digests import file_digest
from vlsurgery.surgery.writer.checksums import SUMS, sums_text

Run = Callable[..., Result]


def test_anatomy_verifies(run: Run, trio: dict[str, Path]) -> None:
    folder = trio["base"]
    assert f"no {SUMS}" in run("anatomy", folder, "--verify").stderr
    (folder / SUMS).write_text(sums_text({file.name: file_digest(file) for file in folder.iterdir()}))
    assert (
        f"all {len(list(folder.iterdir())) - 1} files are as they were written"
        in run("anatomy", folder, "--verify").stdout
    )
    verified = json.loads(run("anatomy", folder, "--verify", "--json").stdout)["verified"]
    assert verified[str(folder)]["differ"] == []
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")
    shown = run("anatomy", folder, "--verify", "--json")
    assert shown.exit_code == 2
    assert "model.safetensors (other bytes than were written)" in shown.stderr
    assert json.loads(shown.stdout)["verified"][str(folder)]["differ"] == ["model.safetensors"]


def test_only_a_directory_can_be_verified(run: Run) -> None:
    shown = run("anatomy", "org/name", "--verify")
    assert shown.exit_code == 2
    assert "--verify takes directories" in shown.stderr
