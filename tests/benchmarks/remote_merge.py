"""Merges and diffs of checkpoints in a store of objects, S3 as moto serves it: their bytes, and what they cost.

    python tests/benchmarks/remote_merge.py [--parts bytes,cost,kills,ray] [--moto DIR] [--drivers N] [--seed N]

bytes: every method, and a diff at both levels, of tiny checkpoints; every file and number is compared with those from
disk. cost: blend, ties and slerp of three models of 0.34 GB on a plain web server: bytes that it sent by those of the
weights, requests, the most memory, and the time by that from disk. Some matrices are too large to be held by slerp, and
by ties at density 0.5, which see a matrix whole before they merge it. kills: the program is killed at
random moments of a ties merge of 0.05 GB, and the same command given again, --drivers times. ray: the same by two
workers of a local cluster, where Ray is installed, and once with a worker killed. --moto: where moto is installed, as
`make build/bench/s3` does it; s3fs comes with the packages for development. Both servers share the machine. Ends with 1
where a file differs or a bound is missed.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import psutil
import ray_merge
import synthetic
from ray_merge import ROLES, digests, recipe_of, workers_of
from timing import Run, run, vlsurgery

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff.run import diff
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.methods import METHODS
from vlsurgery.surgery.runtime.host import torch_in_one_thread

PARTS = ("bytes", "cost", "kills", "ray")
LIMIT_MB = 1024 * 1.073741824
# Bytes sent by those of the weights, at most: headers and samples come beside them.
MOST_BYTES = 1.05
# Gigabytes -> shapes as in synthetic.py, and bytes of a shard.
SHAPES = {
    0.34: ((4096, 1, 5120, 32, 8, 8192), 1 << 26),
    0.05: ((512, 4, 2048, 8, 8, 8192), 1 << 22),
    0.001: ray_merge.SMALL[0.001],
}
BUCKET = "models"
# Files that name where the inputs were.
NAMING = {"README.md", "recipe.yaml", "SHA256SUMS"}
# moto, at a port.
MOTO = """
import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_request(self, *_):
        pass

served = DomainDispatcherApplication(create_backend_app)
make_server("127.0.0.1", int(sys.argv[1]), served, threaded=True, request_handler=Handler).serve_forever()
"""
# The files of a directory, by ranges, at a port; and a count of requests and bytes, which being asked for begins anew.
WEB = """
import http.server, os, re, sys

count = [0, 0]

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        if self.path == "/counted":
            told, count[:] = b"%d %d" % tuple(count), [0, 0]
            return self.answer(200, len(told)) or self.wfile.write(told)
        try:
            file = open(sys.argv[2] + self.path, "rb")
        except OSError:
            return self.answer(404, 0)
        with file:
            found = re.fullmatch("bytes=([0-9]+)-([0-9]+)", self.headers["Range"])
            size = os.fstat(file.fileno()).st_size
            start, stop = int(found[1]), min(int(found[2]) + 1, size)
            self.answer(206, stop - start, ("Content-Range", f"bytes {start}-{stop - 1}/{size}"), ("ETag", '"1"'))
            self.wfile.flush()
            while start < stop:
                start += os.sendfile(self.connection.fileno(), file.fileno(), start, stop - start)
            count[0] += 1
            count[1] += stop - int(found[1])

    def answer(self, status, length, *headers):
        self.send_response(status)
        for name, value in (("Content-Length", str(length)), *headers):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    def handle_error(self, *_):
        pass

Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
# Runs a command, and says the most memory that it took: a process of little memory, as a child's begins with its own.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[2:], check=True, stdout=subprocess.DEVNULL)
open(sys.argv[1], "w").write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
"""


@contextmanager
def serving(script: str, *words: str, **environment: str) -> Iterator[str]:
    """A server on the loopback interface, by a script that is given a port and `words`. Yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", script, str(port), *words]
    with subprocess.Popen(command, env={**os.environ, **environment}) as process:
        try:
            for _ in range(600):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


@contextmanager
def bucket(installed: Path) -> Iterator[Callable[[Path], str]]:
    """A server of S3, to which this process and those that it starts are directed. Yields a function that copies a
    folder into it and gives its URL."""
    with serving(MOTO, PYTHONPATH=str(installed)) as url:
        os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
        os.environ |= {"AWS_DEFAULT_REGION": "us-east-1"}

        def upload(folder: Path) -> str:
            import s3fs

            files = s3fs.S3FileSystem()
            if not files.exists(BUCKET):
                files.mkdir(BUCKET)
            files.put(str(folder), f"{BUCKET}/{folder.name}", recursive=True)
            return f"s3://{BUCKET}/{folder.name}"

        yield upload


def written(folder: Path) -> dict[str, str]:
    """The digests of what a merge wrote, but for the files that name its inputs."""
    return {name: digest for name, digest in digests(folder).items() if name not in NAMING}


def made(folder: Path, gb: float, roles: tuple[str, ...]) -> Path:
    synthetic.MODELS[gb], synthetic.SHARD_BYTES = SHAPES[gb]
    synthetic.make(folder, gb, roles)
    return folder


def same_bytes(folder: Path, upload: Callable[[Path], str]) -> bool:
    tiny = made(folder / "tiny", 0.001, ROLES)
    places = {"here": str(tiny), "away": upload(tiny)}
    opened = {where: {role: Checkpoint.open(f"{place}/{role}") for role in ROLES} for where, place in places.items()}
    equal = 0
    for name in METHODS:
        outs = {where: folder / f"{name}-{where}" for where in places}
        for where, out in outs.items():
            run_merge(recipe_of(opened[where], name), out)
        equal += written(outs["here"]) == written(outs["away"])
    numbers = 0
    with torch_in_one_thread():
        for level in ("norms", "full"):
            one, other = (diff(align({role: held[role] for role in ROLES[:3]}), level) for held in opened.values())
            same = other.model_copy(update={"created": one.created, "checkpoints": one.checkpoints})
            numbers += same.json_text() == one.json_text()
    print(f"bytes: {equal} of {len(METHODS)} methods equal in every file; {numbers} of 2 levels of a diff", flush=True)
    return equal == len(METHODS) and numbers == 2


def words(method: str, place: str) -> list[str]:
    """The command of a merge of what lies at a place."""
    base, adapted, safety = (f"{place}/{role}" for role in ROLES[:3])
    origin = [] if method == "slerp" else ["--base", base]
    more = ["--density", "0.5"] if method == "ties" else ["--weight", "0.4"]
    return ["merge", "--method", method, adapted, safety, *origin, *more]


def measured(folder: Path, *arguments: str | Path) -> Run:
    """A command of the program: its seconds, and the most memory, in MB."""
    told = folder / "peak"
    seconds = run([sys.executable, "-c", MEASURE, told, *vlsurgery(*arguments)]).seconds
    return Run(seconds, int(told.read_text()) / 1000)


def cost(folder: Path) -> bool:
    good, large = True, made(folder / "large", 0.34, ROLES[:3])
    with serving(WEB, str(large)) as url:
        for method in ("blend", "ties", "slerp"):
            roles = ROLES[1:3] if method == "slerp" else ROLES[:3]
            inputs = sum(file.stat().st_size for role in roles for file in (large / role).glob("*.safetensors"))
            here = measured(folder, *words(method, str(large)), "--quiet", "-o", folder / "here")
            httpx.get(f"{url}/counted")
            away = measured(folder, *words(method, url), "--quiet", "-o", folder / "away")
            requests, nbytes = map(int, httpx.get(f"{url}/counted").text.split())
            equal = written(folder / "here") == written(folder / "away")
            good &= equal and nbytes <= MOST_BYTES * inputs and away.peak < LIMIT_MB
            print(
                f"cost: {method}, {inputs / 1e9:.2f} GB: {nbytes / 1e9:.2f} GB sent (x {nbytes / inputs:.3f}), "
                f"{requests} requests, {away.seconds:.1f} s and {away.peak:.0f} MB at most; from disk "
                f"{here.seconds:.1f} s and {here.peak:.0f} MB (x {away.seconds / here.seconds:.1f} of the time); "
                f"{'equal' if equal else 'DIFFERENT'}",
                flush=True,
            )
    return good


def driver_kills(folder: Path, url: str, count: int, seed: int) -> bool:
    rng, out, equal, kept = random.Random(seed), folder / "killed", 0, []
    copies = folder / "copies"
    copies.mkdir()
    os.environ["TMPDIR"] = str(copies)
    command = [*map(str, vlsurgery(*words("ties", url), "--quiet", "-o", out))]
    run(command)
    wanted, partial = digests(out), out.with_name("killed.partial")
    shards = len([*out.glob("*.safetensors")])
    for _ in range(count):
        shutil.rmtree(out)
        moment = rng.randrange(1, shards)
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            while process.poll() is None and len([*partial.glob("*.safetensors")]) < moment:
                time.sleep(0.01)
            time.sleep(0.5 * rng.random())
            process.send_signal(signal.SIGKILL)
        kept.append(len([*partial.glob("*.safetensors")]) if partial.exists() else shards)
        run(command)
        equal += digests(out) == wanted
    left = len([*copies.glob("vlsurgery-copies-*")])
    print(
        f"kills: {count} killed, when {', '.join(map(str, kept))} of {shards} shards were finished; {equal} equal "
        f"after the same command again; {left} folders of copies left",
        flush=True,
    )
    return equal == count and not left


def by_ray(folder: Path, url: str) -> bool:
    if find_spec("ray") is None:
        print("ray: not installed", flush=True)
        return True
    alone, out = folder / "alone", folder / "divided"
    run(vlsurgery(*words("ties", url), "--quiet", "-o", alone))
    command = [*map(str, vlsurgery(*words("ties", url), "--quiet", "-o", out, "--ray", "local:2"))]
    equal, killed = 0, 0
    for kill in (False, True):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while kill and not killed and process.poll() is None:
                if found := workers_of(psutil.Process(process.pid), ray_merge.WORKING):
                    found[0].kill()
                    killed += 1
                time.sleep(0.05)
        equal += process.returncode == 0 and written(out) == written(alone)
        shutil.rmtree(out)
    print(f"ray: {equal} of 2 merges by 2 workers are equal in every file, {killed} worker killed", flush=True)
    return equal == 2 and killed == 1


def main() -> None:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--moto", type=Path, default=Path("build/bench/s3"))
    parser.add_argument("--drivers", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, bucket(options.moto.absolute()) as upload:
        folder = Path(name)
        small = upload(made(folder / "small", 0.05, ROLES[:3]))
        works = {
            "bytes": lambda: same_bytes(folder, upload),
            "cost": lambda: cost(folder),
            "kills": lambda: driver_kills(folder, small, options.drivers, options.seed),
            "ray": lambda: by_ray(folder, small),
        }
        good = [works[part]() for part in options.parts]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
