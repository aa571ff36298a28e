"""Laws of engines: every item's results once, one set-up a worker, faults as they are.

Ray is a stand-in here, in which workers find places and die as a test says; tests/benchmarks/ray_merge.py asks the same
of a real cluster.
"""

import itertools
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, strategies as st

from vlsurgery.surgery.errors import CheckpointError, SurgeryError
from vlsurgery.surgery.runtime import ray_cluster as clusters, ray_engine, worker_pool
from vlsurgery.surgery.runtime.division import evenly_divided, loads
from vlsurgery.surgery.runtime.engine import InProcess
from vlsurgery.surgery.runtime.ray_cluster import check_address, local_engine, ray_cluster
from vlsurgery.surgery.runtime.ray_engine import RayEngine

SET_UPS: Counter[str] = Counter()


@dataclass(frozen=True)
class Squares:
    """Gives the square and the cube of a number, and the error for what is none."""

    fault: Exception | None = None

    def __call__(self) -> Callable[[int], Iterator[int]]:
        SET_UPS["all"] += 1
        if self.fault is not None:
            raise self.fault
        return self.work

    @staticmethod
    def work(number: int) -> Iterator[int]:
        if number < 0:
            raise CheckpointError(f"item {number}: broken")
        yield number**2
        yield number**3


@dataclass(eq=False)
class Actor:
    """A worker of the stand-in. deaths: how often it dies in a call, of which the stand-in gives no result."""

    worker: Any
    killed: bool = False

    @property
    def ready(self) -> "Method":
        return Method(self, "ready")

    @property
    def do(self) -> "Method":
        return Method(self, "do")


@dataclass(frozen=True)
class Method:
    actor: Actor
    name: str

    def remote(self, *arguments: Any) -> "Call":
        assert not self.actor.killed
        return Call(self.actor, self.name, arguments)


@dataclass(eq=False)
class Call:
    actor: Actor
    name: str
    arguments: tuple[Any, ...]


@dataclass
class StandIn:
    """As much of ray as the engine calls. places: for workers. dying: items at which a worker is lost for good. away:
    how often a call finds no worker before it finds one."""

    places: int
    dying: Sequence[int] = ()
    actors: list[Actor] = field(default_factory=list)
    kind: Any = None
    options_given: dict[str, Any] = field(default_factory=dict)
    away: int = 0

    def remote(self, kind: Any) -> Any:
        self.kind = kind
        return self

    def options(self, **given: Any) -> Any:
        stand_in, self.options_given = self, given

        class Kind:
            @staticmethod
            def remote(*arguments: Any) -> Actor:
                stand_in.actors.append(Actor(stand_in.kind(*arguments)))
                return stand_in.actors[-1]

        return Kind

    def put(self, value: Any) -> tuple[Any]:
        return (value,)

    def wait(
        self, calls: list[Call], timeout: float | None = None, num_returns: int = 1
    ) -> tuple[list[Call], list[Call]]:
        if num_returns > 1:
            return [], calls
        placed = [actor for actor in self.actors if not actor.killed][: self.places]
        done = [call for call in calls if call.actor in placed]
        if not done and timeout is not None:
            return [], calls
        assert done, "it would be waited for a worker that never comes"
        return done[-1:], [call for call in calls if call is not done[-1]]

    def get(self, call: Any) -> Any:
        if not isinstance(call, Call):
            return call[0]  # what was put
        if self.away:
            self.away -= 1
            raise sys.modules["ray.exceptions"].ActorUnavailableError("Socket closed")
        if call.name == "do" and call.arguments[-1] in self.dying:
            raise sys.modules["ray.exceptions"].RayActorError("The actor died.\n The worker was killed.")
        return getattr(call.actor.worker, call.name)(*call.arguments)

    def kill(self, actor: Actor) -> None:
        actor.killed = True

    def nodes(self) -> list[dict[str, Any]]:
        gone = {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0, "memory": 1e12}}
        return [gone, {"Alive": True, "Resources": {"CPU": 8.0, "memory": 4e9}}]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Callable[..., StandIn]:
    def put(places: int, dying: Sequence[int] = ()) -> StandIn:
        made, exceptions = StandIn(places, dying), ModuleType("ray.exceptions")
        for name in ("RayError", "RayActorError"):
            setattr(exceptions, name, type(name, (Exception,), {}))
        away = type("ActorUnavailableError", (exceptions.RayActorError,), {})
        exceptions.ActorUnavailableError = away  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "ray", made)  # type: ignore[arg-type]
        monkeypatch.setitem(sys.modules, "ray.exceptions", exceptions)
        monkeypatch.setattr(ray_engine, "AWAY_SECONDS", 0.0)
        monkeypatch.setattr(ray_engine, "limit_cores", lambda _: None)
        monkeypatch.setattr(ray_engine, "keep_freed_memory", lambda: None)
        return made

    return put


@pytest.mark.parametrize("count", [0, 1, 2, 3, 20])
@pytest.mark.parametrize("places", [1, 2, 8])
def test_every_item_is_done_once_by_workers_that_set_up_once(
    stand_in: Callable[..., StandIn], count: int, places: int
) -> None:
    cluster, wanted = stand_in(places), sorted(number**power for number in range(count) for power in (2, 3))
    SET_UPS.clear()
    assert list(InProcess().map(Squares(), range(count))) == [n**p for n in range(count) for p in (2, 3)]
    assert SET_UPS["all"] == min(count, 1)
    SET_UPS.clear()
    engine = RayEngine(cores=4, node_cores=4)
    assert sorted(engine.map(Squares(), range(count))) == wanted
    assert SET_UPS["all"] <= len(cluster.actors) == min(count, 4)
    assert all(actor.killed for actor in cluster.actors)


def test_a_worker_without_a_place_holds_up_nothing_and_an_idle_one_gives_up_its_own(
    stand_in: Callable[..., StandIn],
) -> None:
    cluster = stand_in(places=1)
    found = RayEngine(cores=3, node_cores=3).map(Squares(), [1, 2, 3, 4])
    assert sorted(found) == [1, 1, 4, 8, 9, 16, 27, 64]
    assert len(cluster.actors) == 3


@pytest.mark.parametrize("places", [1, 2, 8])
def test_workers_that_stay_set_up_once_for_all_lists(stand_in: Callable[..., StandIn], places: int) -> None:
    cluster, lists = stand_in(places), [[1, 2, 3, 4, 5], [], [6], [7, 8, 9]]
    for engine, most in ((InProcess(), 1), (RayEngine(cores=3, node_cores=3), min(places, 3))):
        SET_UPS.clear()
        with engine.staying(Squares(), 5) as do:
            for items in lists:
                assert sorted(do(items)) == sorted(number**power for number in items for power in (2, 3))
        assert 1 <= SET_UPS["all"] <= most
    assert len(cluster.actors) == 3
    assert all(actor.killed for actor in cluster.actors)


def test_workers_without_work_make_room_for_one_that_lost_its_place(stand_in: Callable[..., StandIn]) -> None:
    cluster = stand_in(places=2)
    with RayEngine(cores=2, node_cores=2).staying(Squares(), 2) as do:
        assert sorted(do([1, 2])) == [1, 1, 4, 8]
        cluster.actors.reverse()  # The one that is asked last stands behind the other now,
        cluster.places = 1  # which has the only place that is left.
        assert sorted(do([3])) == [9, 27]
        assert sorted(do([4, 5])) == [16, 25, 64, 125]
    assert sum(actor.killed for actor in cluster.actors) == 2


def test_a_fault_in_the_middle_ends_workers_that_stay(stand_in: Callable[..., StandIn]) -> None:
    cluster = stand_in(places=2)
    with RayEngine(cores=2, node_cores=2).staying(Squares(), 2) as do:
        assert sorted(do([1])) == [1, 1]
        with pytest.raises(CheckpointError, match="item -2: broken"):
            list(do([3, -2, 4]))
    assert all(actor.killed for actor in cluster.actors)


@pytest.mark.parametrize("kind", ["here", "ray"])
@pytest.mark.parametrize(
    ("set_up", "items", "error"),
    [
        (Squares(), [1, -2, 3], CheckpointError("item -2: broken")),
        (Squares(CheckpointError("no such file")), [1, 2], CheckpointError("no such file")),
        (Squares(OSError(28, "No space left on device")), [1, 2], OSError(28, "No space left on device")),
    ],
)
def test_faults_come_as_they_are_and_end_every_worker(
    stand_in: Callable[..., StandIn], kind: str, set_up: Squares, items: list[int], error: Exception
) -> None:
    cluster = stand_in(places=2)
    engine = InProcess() if kind == "here" else RayEngine(cores=2, node_cores=2)
    with pytest.raises(type(error)) as raised:
        list(engine.map(set_up, items))
    assert str(raised.value) == str(error)
    assert getattr(raised.value, "errno", None) == getattr(error, "errno", None)
    assert all(actor.killed for actor in cluster.actors)


def test_a_bug_of_a_worker_is_no_fault_of_the_user(stand_in: Callable[..., StandIn]) -> None:
    stand_in(places=2)
    with pytest.raises(ZeroDivisionError):
        list(RayEngine(cores=2, node_cores=2).map(Squares(ZeroDivisionError()), [1]))  # type: ignore[arg-type]


def test_what_a_worker_of_another_machine_does_not_see_is_said_with_the_machine(
    stand_in: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(places=2)
    monkeypatch.setattr(ray_engine.socket, "gethostname", lambda: "node-7")
    with pytest.raises(CheckpointError, match=r"^no such file\. .* on node-7 .* same paths\.$"):
        list(RayEngine(2, 2, local=False).map(Squares(CheckpointError("no such file.")), [1, 2]))


def test_other_versions_are_refused_before_any_work(
    stand_in: Callable[..., StandIn], monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(places=2)
    versions = itertools.chain(["vlsurgery 1"] * 2, itertools.repeat("vlsurgery 2"))
    monkeypatch.setattr(ray_engine, "programs", lambda: next(versions))
    SET_UPS.clear()
    with pytest.raises(SurgeryError, match="has vlsurgery 2, and this machine has vlsurgery 1"):
        list(RayEngine(2, 2).map(Squares(), [1, 2]))
    assert not SET_UPS


def test_an_item_that_kills_its_workers_is_named_in_one_line(stand_in: Callable[..., StandIn]) -> None:
    cluster = stand_in(places=2, dying=[3])
    with pytest.raises(SurgeryError, match=r"died at 3, 11 times \('The worker was killed\.'\)"):
        list(RayEngine(2, 2).map(Squares(), [1, 2, 3, 4]))
    assert cluster.options_given["max_restarts"] == -1
    assert cluster.options_given["max_task_retries"] == 10


def test_a_worker_that_is_not_reached_is_asked_again_but_not_without_end(stand_in: Callable[..., StandIn]) -> None:
    cluster = stand_in(places=1)
    engine = RayEngine(1, 1)
    for away in (1, 10):
        cluster.away = away
        assert sorted(engine.map(Squares(), [1, 2])) == [1, 1, 4, 8]
    with engine.staying(Squares(), 1) as do:
        assert list(do([3])) == [9, 27]
        cluster.away = 10
        assert list(do([4])) == [16, 64]
        cluster.away = 10
        assert list(do([5])) == [25, 125]
        cluster.away = 11
        with pytest.raises(SurgeryError, match="died at 6, 11 times"):
            list(do([6]))


@pytest.mark.parametrize(("gpus", "memory"), [(1.0, 0), (0.0, 5_000_000_000)])
def test_a_worker_that_no_machine_could_hold_is_not_waited_for(
    stand_in: Callable[..., StandIn], gpus: float, memory: int
) -> None:
    cluster = stand_in(places=2)
    with pytest.raises(SurgeryError, match=r"at most 8 cores, 0 GPUs and 4\.00 GB are on one"):
        list(RayEngine(2, 2, gpus=gpus, memory=memory).map(Squares(), [1]))
    assert not cluster.actors


def test_who_stops_listening_ends_the_workers(stand_in: Callable[..., StandIn]) -> None:
    cluster = stand_in(places=2)
    with closing(RayEngine(2, 2).map(Squares(), [1, 2, 3])) as found:
        next(found)
    assert all(actor.killed for actor in cluster.actors)


@pytest.mark.parametrize("cores", [1, 2, 6, 64])
@pytest.mark.parametrize("workers", [None, 1, 3])
@pytest.mark.parametrize("items", [1, 2, 7, 500])
def test_workers_and_threads_fit_the_cores(cores: int, workers: int | None, items: int) -> None:
    node = min(cores, 8)
    engine = RayEngine(cores, node, workers)
    count, threads = engine.num_workers(items), engine.num_threads(items)
    places = [cores // node * (node // each) for each in range(1, node + 1)]
    assert 1 <= count <= min(items, workers or cores)
    assert threads == max((each for each in range(1, node + 1) if places[each - 1] >= count), default=1)


def test_a_worker_keeps_to_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_limit", worker_pool.MAX_WORKERS)
    before = worker_pool.cores()
    worker_pool.limit_cores(1)
    assert worker_pool.cores() == 1
    worker_pool.limit_cores(1000)
    assert worker_pool.cores() == before


@pytest.mark.parametrize(
    ("sizes", "workers", "wanted"),
    [([], 2, [0, 0]), ([5], 3, [5, 0, 0]), ([1, 2, 3, 4], 2, [5, 5]), ([3, 3, 2, 2, 2], 2, [7, 5])],
)
def test_loads(sizes: list[int], workers: int, wanted: list[int]) -> None:
    assert loads(sizes, workers) == wanted


def test_loads_are_within_a_third_of_the_best() -> None:
    sizes = [7, 6, 5, 5, 4, 3, 3]
    best = min(
        max(sum(size for size, to in zip(sizes, division, strict=True) if to == worker) for worker in range(3))
        for division in itertools.product(range(3), repeat=len(sizes))
    )
    assert best <= loads(sizes, 3)[0] <= 4 / 3 * best


@given(st.lists(st.integers(), max_size=20), st.integers(1, 25))
def test_runs_are_all_items_in_order_of_all_but_the_same_length(items: list[int], parts: int) -> None:
    runs = evenly_divided(items, parts)
    assert list(itertools.chain(*runs)) == items
    assert len(runs) == min(parts, len(items))
    assert not runs or max(map(len, runs)) - min(map(len, runs)) <= 1
    assert all(runs)


@pytest.mark.parametrize(
    ("address", "workers"),
    [("local", None), ("local:3", 3), ("auto", None), ("head-1.lan:6379", None), ("10.0.0.7:6379", None)],
)
def test_addresses(address: str, workers: int | None) -> None:
    assert check_address(address) == workers
    engine = local_engine(address)
    assert (engine is not None) == address.startswith("local")
    assert engine is None or (engine.workers, engine.local) == (workers, True)


@pytest.mark.parametrize(
    "address", ["", "local:0", "local:", "LOCAL", "here", "ray://head:1", "host", "a b:1", "h:1\n"]
)
def test_what_is_no_address_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(SurgeryError, match="expected local, local:N") as raised, ray_cluster(address):
        pass
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "fault", [None, Exception("timed out"), RuntimeError("no such\n cluster"), ConnectionError("refused")]
)
def test_connecting_leaves_the_process_as_it_was(
    stand_in: Callable[..., StandIn], tmp_path: Path, fault: Exception | None
) -> None:
    """Ray takes over SIGTERM when it connects, and gives the current folder to its workers as a place of modules."""
    stand_in(places=1)
    before, place = signal.getsignal(signal.SIGTERM), Path.cwd()
    expected = pytest.raises(SurgeryError, match="--ray here: no cluster") if fault else nullcontext()
    with expected as raised, clusters._greeting("here", str(tmp_path)):
        assert Path.cwd() == tmp_path
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if fault:
            raise fault
    assert signal.getsignal(signal.SIGTERM) == before
    assert Path.cwd() == place
    assert raised is None or "\n" not in str(raised.value)


def test_a_signal_while_ray_connects_ends_the_process_in_its_own_way(
    stand_in: Callable[..., StandIn], tmp_path: Path
) -> None:
    """While it connects, Ray's own handler ends the process with the signal's number."""
    stand_in(places=1)

    def own(number: int, frame: object) -> None:
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, own)
    try:
        with pytest.raises(KeyboardInterrupt, match="15"), clusters._greeting("here", str(tmp_path)):  # noqa: PT012
            signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is own
        with pytest.raises(SystemExit), clusters._greeting("here", str(tmp_path)):
            sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ray_is_quiet_and_its_token_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"PYTHONPATH": os.pathsep.join(["code", "", "/elsewhere"])}
    monkeypatch.setattr(os, "environ", environment)
    clusters._set_environment(is_local=True)
    token = environment["RAY_AUTH_TOKEN"]
    clusters._set_environment(is_local=True)
    assert environment["RAY_AUTH_TOKEN"] == token
    assert len(token) == 64
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment["PYTHONPATH"] == os.pathsep.join([str(Path("code").absolute()), "/elsewhere"])
    environment.clear()
    clusters._set_environment(is_local=False)
    assert not {"RAY_AUTH_TOKEN", clusters.BEYOND_LOOPBACK} & environment.keys()


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "find_spec", lambda _: None)
    with pytest.raises(SurgeryError, match=r"pip install 'vlsurgery\[ray\]'"), ray_cluster("local"):
        pass
