"""Merges and diffs of checkpoints in a store of objects, S3 as moto serves it: their bytes, and what they cost.

    python tests/benchmarks/remote_merge.py [--parts bytes,cost,kills,ray] [--server DIR] [--drivers N] [--seed N]

bytes: every method, and a diff at both levels, of tiny checkpoints; every file and number is compared with those from
disk. cost: blend, ties and slerp of three models of 0.34 GB: bytes that the server sent by those of the weights, the
most memory, and the time by that from disk. slerp sees a matrix whole before it merges it, and reads what is too large
to be held twice. kills: the program is killed at random moments of a ties merge, and the same command given again,
--drivers times. ray: the same by two workers of a local cluster, where Ray is installed, and once with a worker killed.
--server: where moto is installed, as `make build/bench/s3` does it; s3fs comes with the packages for development. The
server is of Python and shares the machine: times are no times of S3. Ends with 1 where a file differs or a bound is
missed.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import httpx
import psutil
import ray_merge
import synthetic
from ray_merge import ROLES, digests, recipe_of, workers_of
from timing import run, vlsurgery

from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.diff.run import diff
from vlsurgery.surgery.merge.run import run_merge
from vlsurgery.surgery.methods import METHODS
from vlsurgery.surgery.runtime.host import torch_in_one_thread

PARTS = ("bytes", "cost", "kills", "ray")
LIMIT_MB = 1024 * 1.073741824
# Method -> bytes sent by those of the weights, at most: headers and samples come beside them.
MOST_BYTES = {"blend": 1.05, "ties": 1.05, "slerp": 2.05}
# Gigabytes -> shapes as in synthetic.py, and bytes of a shard.
SHAPES = {
    0.34: ((4096, 1, 5120, 32, 8, 8192), 1 << 26),
    0.05: ((512, 4, 2048, 8, 8, 8192), 1 << 22),
    0.001: ray_merge.SMALL[0.001],
}
# Copies a folder into the bucket: by a process of its own, whose memory counts for no other.
UPLOAD = """
import s3fs, sys
files = s3fs.S3FileSystem()
if not files.exists(sys.argv[2]):
    files.mkdir(sys.argv[2])
files.put(sys.argv[1], sys.argv[3], recursive=True)
"""
BUCKET = "models"
# Files that name where the inputs were.
NAMING = {"README.md", "recipe.yaml", "SHA256SUMS"}
# moto, with a count of requests and of the bytes of their answers, which a request for it begins anew.
SERVER = """
import sys
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

served, count = DomainDispatcherApplication(create_backend_app), [0, 0]

class Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_request(self, *_):
        pass

def counting(environ, start):
    if environ["PATH_INFO"] == "/counted":
        told, count[:] = "%d %d" % tuple(count), [0, 0]
        start("200 OK", [("Content-Length", str(len(told)))])
        return [told.encode()]
    body = [*served(environ, start)]
    count[0] += 1
    count[1] += sum(map(len, body))
    return body

make_server("127.0.0.1", int(sys.argv[1]), counting, threaded=True, request_handler=Handler).serve_forever()
"""


@dataclass(frozen=True)
class Store:
    """The server's address, and what it holds."""

    url: str

    def counted(self) -> tuple[int, int]:
        """Requests and bytes sent since this was last asked."""
        requests, nbytes = map(int, httpx.get(f"{self.url}/counted").text.split())
        return requests, nbytes

    def upload(self, folder: Path) -> str:
        """Copy a folder of checkpoints; returns its URL."""
        run([sys.executable, "-c", UPLOAD, folder, BUCKET, f"{BUCKET}/{folder.name}"])
        return f"s3://{BUCKET}/{folder.name}"


@contextmanager
def serving(installed: Path) -> Iterator[Store]:
    """A server of S3 on the loopback interface, to which this process and those that it starts are directed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    os.environ |= {"AWS_DEFAULT_REGION": "us-east-1", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    with subprocess.Popen([sys.executable, "-c", SERVER, str(port)], env=environment) as process:
        try:
            for _ in range(300):
                try:
                    httpx.get(f"{url}/counted")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield Store(url)
        finally:
            process.kill()


def written(folder: Path) -> dict[str, str]:
    """The digests of what a merge wrote, but for the files that name its inputs."""
    return {name: digest for name, digest in digests(folder).items() if name not in NAMING}


def made(folder: Path, gb: float, roles: tuple[str, ...]) -> Path:
    synthetic.MODELS[gb], synthetic.SHARD_BYTES = SHAPES[gb]
    synthetic.make(folder, gb, roles)
    return folder


def same_bytes(folder: Path, store: Store) -> bool:
    tiny = made(folder / "tiny", 0.001, ROLES)
    places = {"here": str(tiny), "away": store.upload(tiny)}
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
    weight = [] if method == "ties" else ["--weight", "0.4"]
    return ["merge", "--method", method, adapted, safety, *origin, *weight]


def cost(folder: Path, store: Store) -> bool:
    good, large = True, made(folder / "large", 0.34, ROLES[:3])
    url = store.upload(large)
    for method, most in MOST_BYTES.items():
        inputs = sum(
            file.stat().st_size
            for role in (ROLES[1:3] if method == "slerp" else ROLES[:3])
            for file in (large / role).glob("*.safetensors")
        )
        here = run(vlsurgery(*words(method, str(large)), "--quiet", "-o", folder / "here"))
        store.counted()
        away = run(vlsurgery(*words(method, url), "--quiet", "-o", folder / "away"))
        requests, nbytes = store.counted()
        equal = written(folder / "here") == written(folder / "away")
        ratio = nbytes / inputs
        good &= equal and ratio <= most and away.peak < LIMIT_MB
        print(
            f"cost: {method}, {inputs / 1e9:.2f} GB: {nbytes / 1e9:.2f} GB sent (x {ratio:.3f}), {requests} requests, "
            f"{away.seconds:.1f} s and {away.peak:.0f} MB at most, {here.seconds:.1f} s and {here.peak:.0f} MB from "
            f"disk (x {away.seconds / here.seconds:.1f} of the time); {'equal' if equal else 'DIFFERENT'}",
            flush=True,
        )
    return good


def driver_kills(folder: Path, url: str, count: int, seed: int) -> bool:
    rng, out, equal, kept = random.Random(seed), folder / "killed", 0, []
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
    left = len([*Path(tempfile.gettempdir()).glob("vlsurgery-copies-*")])
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
    parser.add_argument("--server", type=Path, default=Path("build/bench/s3"))
    parser.add_argument("--drivers", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, serving(options.server.absolute()) as store:
        folder = Path(name)
        small = made(folder / "small", 0.05, ROLES[:3])
        url = store.upload(small)
        works = {
            "bytes": lambda: same_bytes(folder, store),
            "cost": lambda: cost(folder, store),
            "kills": lambda: driver_kills(folder, url, options.drivers, options.seed),
            "ray": lambda: by_ray(folder, url),
        }
        good = [works[part]() for part in options.parts]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
