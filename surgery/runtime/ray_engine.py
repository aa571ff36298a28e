"""The workers of a Ray cluster as an engine: each item is done by a process of its own, and done again if it dies."""

import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from vlsurgery.surgery.errors import SurgeryError
from vlsurgery.surgery.runtime.byte_counts import in_words
from vlsurgery.surgery.runtime.engine import Does, SetUp
from vlsurgery.surgery.runtime.excerpts import excerpt
from vlsurgery.surgery.runtime.host import keep_freed_memory
from vlsurgery.surgery.runtime.programs import programs
from vlsurgery.surgery.runtime.worker_pool import MAX_WORKERS, limit_cores

Item = TypeVar("Item")
Made = TypeVar("Made")

# How often one item is done again because its worker died: more is no accident, even where machines are taken away.
MAX_RETRIES: Final = 10
# Seconds that workers are waited for at the end.
ENDING_SECONDS: Final = 10.0
# Seconds until a worker is asked again that could not be reached: where a machine is busy, Ray may use up its own tries
# on the connection to a process that is gone before it knows that it is.
AWAY_SECONDS: Final = 1.0
# Seconds without any result after which workers that have nothing to do give up their places: one that died may wait
# for a place to begin again.
IDLE_SECONDS: Final = 300.0


@dataclass(frozen=True)
class RayEngine:
    """The workers of the Ray cluster that this process is connected to.

    cores: of the whole cluster. node_cores: of its smallest machine, which a worker must fit. workers: how many there
    are at most; None: as many as there are cores. gpus: of each worker, 0.5 where two share one. memory: bytes that
    each reserves by Ray's count. local: whether all workers are on this machine.
    """

    cores: int
    node_cores: int
    workers: int | None = None
    gpus: float = 0.0
    memory: int = 0
    local: bool = True

    def num_workers(self, num_items: int) -> int:
        return max(1, min(num_items, self.cores if self.workers is None else self.workers))

    def num_threads(self, num_items: int) -> int:
        """The threads of each of the workers that divide so many items: as many as leave all of them a place, were all
        machines as large as the smallest."""
        machines, workers = self.cores // self.node_cores, self.num_workers(num_items)
        fitting = (each for each in range(1, MAX_WORKERS + 1) if machines * (self.node_cores // each) >= workers)
        return max(fitting, default=1)

    def map(self, set_up: SetUp[Item, Made], items: Sequence[Item]) -> Generator[Made, None, None]:
        if not items:
            return
        staff = _Staff(set_up, self._workers(len(items)), stays=False)
        try:
            yield from staff.do(items)
        finally:
            staff.end()

    @contextmanager
    def staying(self, set_up: SetUp[Item, Made], num_items: int) -> Iterator[Does[Item, Made]]:
        staff = _Staff(set_up, self._workers(num_items), stays=True)
        try:
            yield staff.do
        finally:
            staff.end()

    def _workers(self, num_items: int) -> list[Any]:
        """The workers, which begin when the cluster has room for them. One that dies begins again."""
        import ray

        threads = self.num_threads(num_items)
        self._check_room(threads)
        kind = ray.remote(_Worker).options(
            num_cpus=threads,
            num_gpus=self.gpus,
            memory=self.memory or None,
            max_restarts=-1,
            max_task_retries=MAX_RETRIES,
        )
        return [kind.remote(threads, self.local) for _ in range(self.num_workers(num_items))]

    def _check_room(self, threads: int) -> None:
        """Raise SurgeryError where no machine could hold a worker even if it did nothing else."""
        import ray

        needed = {"CPU": threads, "GPU": self.gpus, "memory": self.memory}
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(all(node.get(kind, 0) >= count for kind, count in needed.items()) for node in nodes):
            most = {kind: max(node.get(kind, 0) for node in nodes) for kind in needed}
            raise SurgeryError(
                f"--ray: no machine of the cluster has room for a worker of {threads} cores, {self.gpus:g} GPUs and "
                f"{in_words(self.memory)} of memory; at most {most['CPU']:g} cores, {most['GPU']:g} GPUs and "
                f"{in_words(int(most['memory']))} are on one. Add a larger machine, or leave --ray out."
            )


class _Staff:
    """Workers, and what each was asked last. stays: whether one without anything to do waits for the next list."""

    def __init__(self, set_up: SetUp[Any, Any], workers: Sequence[Any], stays: bool) -> None:
        import ray

        self._workers, self._stays = workers, stays
        # One copy for all workers, kept while there are any: one that begins again asks for it again.
        self._shared = (ray.put(set_up),)
        self._idle: list[Any] = []
        self._away: Counter[int] = Counter()  # Worker -> how often in a row it could not be reached.
        # None: whether it is ready.
        self._calls: dict[Any, tuple[Any, Any]] = {each.ready.remote(programs()): (each, None) for each in workers}

    def do(self, items: Sequence[Any]) -> Generator[Any, None, None]:
        import ray

        waiting, left = deque(items), len(items)
        while waiting and self._idle:
            self._give(self._idle.pop(), waiting.popleft())
        while left:
            done, _ = ray.wait(list(self._calls), timeout=IDLE_SECONDS if self._idle else None)
            if not done:
                self._dismiss()
                continue
            worker, item = self._calls.pop(done[0])
            made = _result(done[0], item, self._away[id(worker)] < MAX_RETRIES)
            if made is None:
                self._away[id(worker)] += 1
                time.sleep(AWAY_SECONDS)
                self._give(worker, item)
                continue
            del self._away[id(worker)]
            left -= item is not None
            if waiting:
                self._give(worker, waiting.popleft())
            elif self._stays:
                self._idle.append(worker)
            else:
                ray.kill(worker)  # Its cores are then free for a worker that had no place yet.
            yield from made

    def end(self) -> None:
        import ray

        for worker in self._workers:
            ray.kill(worker)
        if self._calls:
            ray.wait(list(self._calls), num_returns=len(self._calls), timeout=ENDING_SECONDS)

    def _give(self, worker: Any, item: Any) -> None:
        call = worker.ready.remote(programs()) if item is None else worker.do.remote(self._shared, item)
        self._calls[call] = (worker, item)

    def _dismiss(self) -> None:
        import ray

        while self._idle:
            ray.kill(self._idle.pop())


def _result(call: Any, item: Any, may_be_away: bool) -> Iterable[Any] | None:
    """What a call gave: the results of an item, or nothing where a worker said that it is ready (item None).

    may_be_away: whether a worker that could not be reached is no error yet; then there is None.

    Raises the worker's own SurgeryError or OSError; a bug keeps its traceback.
    """
    import ray
    from ray.exceptions import ActorUnavailableError, RayActorError

    try:
        found = ray.get(call)
    except RayActorError as error:
        if may_be_away and isinstance(error, ActorUnavailableError):
            return None
        what = "at the start" if item is None else f"at {excerpt(item)}, {MAX_RETRIES + 1} times"
        raise SurgeryError(
            f"a Ray worker died {what} ({_last_line(error)}). It may have run out of memory: use fewer workers. What "
            "is finished is kept; the same command goes on from there."
        ) from error
    if isinstance(found, _Fault):
        raise found.error
    return found or ()


@dataclass(frozen=True)
class _Fault:
    """An error that a user can mend, on its way from a worker."""

    error: SurgeryError | OSError


class _Worker:
    """What runs in a worker's process, which has no other work."""

    def __init__(self, threads: int, local: bool) -> None:
        limit_cores(threads)
        keep_freed_memory()
        os.environ["OMP_NUM_THREADS"] = "1"  # of torch, once it is imported: threads of the pool each have a task
        self._local = local
        self._work: Callable[[Any], Iterable[Any]] | None = None

    def ready(self, wanted: str) -> _Fault | None:
        """Whether its programs are those that the results must come from."""
        if programs() == wanted:
            return None
        return _Fault(
            SurgeryError(
                f"the Ray worker on {socket.gethostname()} has {programs()}, and this machine has {wanted}: results "
                "could differ. Install the same versions on all machines."
            )
        )

    def do(self, shared: tuple[Any], item: Any) -> list[Any] | _Fault:
        """shared: where the set-up is found."""
        try:
            if self._work is None:
                self._work = self._opened(shared)
            return list(self._work(item))
        except (SurgeryError, OSError) as error:
            return _Fault(error)

    def _opened(self, shared: tuple[Any]) -> Callable[[Any], Iterable[Any]]:
        import ray

        set_up: SetUp[Any, Any] = ray.get(shared[0])
        try:
            return set_up()
        except SurgeryError as error:
            if self._local:
                raise
            raise type(error)(
                f"{error} A Ray worker on {socket.gethostname()} found that: what is read and written must lie in "
                "directories that all machines of the cluster have under the same paths."
            ) from error


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return excerpt(lines[-1] if lines else type(error).__name__, 200)
