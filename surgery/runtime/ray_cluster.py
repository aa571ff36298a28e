"""Connecting to a Ray cluster, or starting one on this machine for as long as it is needed; without Ray's own noise."""

import logging
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from importlib.util import find_spec
from typing import Final

from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.excerpts import excerpt
from vlsurgery.surgery.runtime.ray_engine import RayEngine
from vlsurgery.surgery.runtime.worker_pool import cores

LOOPBACK: Final = "127.0.0.1"
# Bytes of Ray's store of objects: results are small, and weights never go through it.
STORE_BYTES: Final = 80 << 20
# Seconds that an address is tried.
CONNECTING_SECONDS: Final = 10.0
LOCAL: Final = re.compile(r"local(?::([1-9][0-9]{0,3}))?")
HOST_AND_PORT: Final = re.compile(r"([\w.-]+):([0-9]{1,5})", re.ASCII)
FORMS: Final = "local, local:N (N workers on this machine), auto (the cluster that runs here already) or HOST:PORT"
# Read when ray is imported, and by the processes that it starts: no statistics are sent or collected, no line of a
# process of Ray's is shown, and workers are as important to the system as the process that they work for.
ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "false",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
    "RAY_worker_niceness": "0",
}
# Whether machines of a cluster reach each other: where not, Ray listens on the loopback interface alone.
BEYOND_LOOPBACK: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@contextmanager
def ray_cluster(address: str, gpus: float = 0.0, memory: int = 0) -> Iterator[RayEngine]:
    """The workers of a cluster, while the block runs.

    address: "local" starts a cluster on this machine with a worker a core, "local:N" one with N workers; it listens on
    the loopback interface alone and ends with the block. "auto" is the cluster that runs on this machine already, or
    the one that RAY_ADDRESS names, and "HOST:PORT" another one; their machines must have this program and see what is
    read and written under the same paths. gpus, memory: what each worker takes, as `RayEngine` has it.

    A cluster that this process is connected to already is used as it is, and stays.

    Raises SurgeryError where ray is missing, where the address is none of these, and where no cluster answers.
    """
    check_address(address)
    if find_spec("ray") is None:
        raise SurgeryError(f"--ray {address}: needs the package ray. Install it: pip install 'vlsurgery[ray]'.")
    own = local_engine(address, gpus, memory)
    _set_environment(own is not None)
    import ray

    if ray.is_initialized():
        yield _connected_engine(gpus, memory)
        return
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        try:
            if own is not None:
                _start(max(own.cores, own.workers or 1), folder)
            else:
                _connect(address, folder)
            yield own or _connected_engine(gpus, memory)
        finally:
            ray.shutdown()


def _set_environment(is_local: bool) -> None:
    """Say to Ray what only its environment can: to be quiet, and the token of those who may speak to a cluster of our
    own. Without one, Ray writes a token into the home directory; this one lives as long as this process."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "PYTHONPATH" in os.environ:  # Ray's processes begin in another folder.
        places = os.environ["PYTHONPATH"].split(os.pathsep)
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, filter(None, places)))
    if is_local:
        os.environ[BEYOND_LOOPBACK] = "0"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def local_engine(address: str, gpus: float = 0.0, memory: int = 0) -> RayEngine | None:
    """The engine that `ray_cluster` would start on this machine, unstarted; None for the address of another cluster.

    Raises SurgeryError for what is no address.
    """
    workers = check_address(address)
    if LOCAL.fullmatch(address) is None:
        return None
    return RayEngine(cores(), cores(), workers, gpus, memory, local=True)


def machines() -> list[dict[str, float]]:
    """What each machine of the cluster has that this process is connected to, by Ray's names: CPU, GPU, memory in
    bytes."""
    import ray

    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def check_address(address: str) -> int | None:
    """How many workers an address asks for; None where it doesn't say. Raises SurgeryError for what is no address."""
    found = LOCAL.fullmatch(address)
    if found is not None:
        return None if found[1] is None else int(found[1])
    if address == "auto" or (HOST_AND_PORT.fullmatch(address) and not address.startswith("local:")):
        return None
    raise SurgeryError(f"--ray {address}: expected {FORMS}.")


def _start(num_cpus: int, folder: str) -> None:
    """Start a cluster on this machine. folder: for what Ray's processes write."""
    import ray

    with _greeting("local", folder):
        ray.init(
            address="local",
            num_cpus=num_cpus,
            object_store_memory=STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
        )
    found = {node["NodeManagerAddress"] for node in ray.nodes()}
    if found != {LOOPBACK}:
        raise SurgeryError(
            f"--ray local: ray listens on {', '.join(sorted(found))}, as it was imported before. Import vlsurgery's "
            "ray_cluster first, or start the cluster yourself and give --ray auto."
        )


def _connect(address: str, folder: str) -> None:
    """Connect to a cluster. folder: an empty one. Raises SurgeryError where none answers."""
    import ray

    found = HOST_AND_PORT.fullmatch(address)
    if found is not None:
        try:
            socket.create_connection((found[1], int(found[2])), CONNECTING_SECONDS).close()
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise SurgeryError(
                f"--ray {address}: nothing answers there ({reason}). Give the address of a cluster's head, or start "
                "one: ray start --head."
            ) from error
    with _greeting(address, folder):
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)


def _connected_engine(gpus: float, memory: int) -> RayEngine:
    """The engine of the cluster that this process is connected to."""
    import ray

    nodes = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    having = [count for count in nodes if count]
    if not having:
        raise SurgeryError("--ray: the cluster has no cores to work on. Start a node with some: ray start.")
    return RayEngine(sum(having), min(having), None, gpus, memory, local=False)


@contextmanager
def _greeting(address: str, folder: str) -> Iterator[None]:
    """Connect without Ray's warnings, and keep this process's own way to be ended, which Ray replaces.

    folder: where that is done, an empty one: workers import modules from where the program was when it connected, and
    that may be a folder with anything in it. Raises SurgeryError for what keeps Ray from starting or connecting.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings(), chdir(folder):
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # Ray raises a bare Exception where its processes take too long to start.
        reason = excerpt(" ".join(str(error).split()), 300)
        raise SurgeryError(f"--ray {address}: no cluster to work on ({reason}).") from error
    except SystemExit as error:  # That is how Ray ends the process by a SIGTERM while it connects.
        if error.code == signal.SIGTERM and callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)
