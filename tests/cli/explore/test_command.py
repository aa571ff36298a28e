"""The command: what it prints, where it ends, and faults in one line."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from typer.testing import CliRunner

from vlsurgery.cli.main import app


def test_it_serves_until_it_is_told_to_end(explored: Path) -> None:
    program = [sys.executable, "-m", "vlsurgery.cli.main", "explore", str(explored), "--no-browser", "--json"]
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as ran:
        assert ran.stdout is not None
        address = json.loads(ran.stdout.readline())["address"]
        assert address.startswith("http://127.0.0.1:")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address, timeout=60) as answer:
            assert "vlsurgery explore" in answer.read().decode()
        ran.send_signal(signal.SIGINT)
        rest, said = ran.communicate(timeout=60)
    assert (ran.returncode, rest) == (0, "")
    assert "Ctrl-C" in said
    assert "Traceback" not in said


def test_the_plan_serves_nothing(explored: Path) -> None:
    done = CliRunner().invoke(app, ["explore", str(explored), "--plan"])
    assert done.exit_code == 0
    assert "Would serve" in done.stdout


def test_where_there_is_no_case_it_says_so(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["explore", str(tmp_path), "--no-browser"])
    assert done.exit_code == 2
    assert "vlsurgery diff BASE ADAPTED" in done.stderr
    assert CliRunner().invoke(app, ["explore", str(tmp_path), "--port", "70000"]).exit_code == 2


def test_a_broken_file_of_directions_is_named(explored: Path, tmp_path: Path) -> None:
    for name in ("case.json", "probe.json"):
        (tmp_path / name).write_bytes((explored / name).read_bytes())
    (tmp_path / "directions.safetensors").write_bytes(b"x" * 100)
    done = CliRunner().invoke(app, ["explore", str(tmp_path), "--no-browser"])
    assert done.exit_code == 2
    assert "directions.safetensors" in done.stderr
    assert "vlsurgery probe" in done.stderr
    assert done.stderr.count("\n") == 1
