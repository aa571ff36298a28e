"""All prompts asked of a served model, several at a time; what was said already is not asked again."""

import asyncio
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Final, TypeVar

from vlsurgery.probes.endpoint.address import Endpoint
from vlsurgery.probes.endpoint.client import EndpointClient
from vlsurgery.probes.endpoint.errors import EndpointError, RequestRefused
from vlsurgery.probes.endpoint.served import ServedModel
from vlsurgery.probes.evaluation.completion_store import CompletionStore, Said
from vlsurgery.probes.harnesses.pictures import data_uri
from vlsurgery.probes.prompts import Prompt
from vlsurgery.probes.results import CompletionRecord
from vlsurgery.surgery.results import CheckpointRef
from vlsurgery.surgery.runtime.progress import Progress, no_progress

T = TypeVar("T")

SEED: Final = 0

# Words of providers whose own filter refuses a request before a model sees it.
FILTER_CODES: Final = ("content_filter", "content_policy_violation")

# Statuses by which servers refuse any picture, where the model takes none.
NOT_SEEING: Final = (400, 415, 422, 500, 501)

# The settings that bound a completion.
LIMITS: Final = ("max_tokens", "max_completion_tokens")

# Settings that some servers don't take -> what is sent in their place.
_IN_PLACE: Final = {"max_tokens": "max_completion_tokens", "temperature": None, "seed": None}


@dataclass(frozen=True)
class Interviewed:
    """What a served model said. notes: what a reader should know of it."""

    records: list[CompletionRecord]
    ref: CheckpointRef
    notes: list[str]


def interview(
    served: ServedModel, prompts: Sequence[Prompt], store: CompletionStore, progress: Progress = no_progress
) -> Interviewed:
    """Ask a served model the prompts that the store lacks, and keep its completions as they come.

    Greedy (temperature 0). Where the model takes no pictures, prompts with one are left out. Raises EndpointError;
    completions that came before are kept.
    """
    with asyncio.Runner() as runner:
        client = EndpointClient(served.endpoint, served.name, store.tokens, served.connections)
        try:
            told = (runner.run(client.models()) or {}).get(served.name)
            return _ServedInterview(served, served.ref(told), store, client, runner).all(prompts, progress)
        finally:
            runner.run(client.close())


def served_names(endpoint: Endpoint) -> list[str]:
    """The names of the models that an endpoint lists. Raises EndpointError where it can't be reached."""

    async def names() -> list[str]:
        async with EndpointClient(endpoint, "", 1, 1) as client:
            return [endpoint.without_key(name) for name in await client.models() or ()]

    return asyncio.run(names())


@dataclass
class _ServedInterview:
    """One interview.

    settings: sent with every request. filtered: ids of prompts that the server's own filter turned away;
    ended_by_filter: how many completions it ended.
    """

    served: ServedModel
    ref: CheckpointRef
    store: CompletionStore
    client: EndpointClient
    runner: asyncio.Runner
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    filtered: set[str] = field(default_factory=set)
    ended_by_filter: int = 0

    def __post_init__(self) -> None:
        self.settings = {"max_tokens": self.store.tokens, "temperature": 0, "seed": SEED}
        if self.served.thinking is not None:
            self.settings["chat_template_kwargs"] = {"enable_thinking": self.served.thinking}

    def all(self, prompts: Sequence[Prompt], progress: Progress) -> Interviewed:
        kept = len(prompts) - len(self._missing(prompts))
        asked = self._tried(prompts)
        missing = self._missing(asked)
        for _ in progress(self._answered(missing), f"asking {self.served.role}", len(missing)):
            pass
        passed = [prompt for prompt in asked if prompt.id not in self.filtered]
        records = self.store.of(self.served.role, self.ref.identity, passed)
        return Interviewed(records, self.ref, [*self.notes, *self._told(kept, len(prompts))])

    def _tried(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """The prompts that the model takes, after one of text was asked and one picture shown."""
        missing = self._missing(prompts)
        text = next((prompt for prompt in missing if prompt.image is None), None)
        if text is not None:
            self._settled(lambda: list(self._answered([text])))
        pictured = [prompt for prompt in prompts if prompt.image is not None]
        unseen = [prompt for prompt in missing if prompt.image is not None]
        if not unseen or len(unseen) < len(pictured):
            return list(prompts)
        blindness = self._blindness(unseen[0])
        if blindness is None:
            return list(prompts)
        told = f"{self.served.role} takes no pictures at its endpoint ({blindness})"
        if len(pictured) == len(prompts):
            where = self.served.endpoint.url
            raise EndpointError(f"{where}: {told}, and all prompts have one. Serve one that sees.")
        self.notes.append(f"{told}: {len(pictured)} prompts with pictures were left out")
        return [prompt for prompt in prompts if prompt.image is None]

    def _blindness(self, prompt: Prompt) -> str | None:
        """Why the model can't be shown pictures; None where it can. Some servers leave them out without a word."""
        alone = self._settled(lambda: self._tokens_read(replace(prompt, modality="text", image=None)))
        try:
            beside = self._settled(lambda: self._tokens_read(prompt))
        except RequestRefused as error:
            if error.status not in NOT_SEEING:
                raise
            return error.said or f"status {error.status}"
        if alone is None or beside is None:
            self.notes.append(
                f"{self.served.role}: its endpoint does not say how much it reads, so it isn't known whether it looks "
                "at pictures"
            )
            return None
        return None if beside > alone else f"it reads {beside} tokens with a picture and {alone} without"

    def _tokens_read(self, prompt: Prompt) -> int | None:
        """How many tokens the server reads of a prompt, for a completion of one token."""
        limit = {name: 1 for name in self.settings if name in LIMITS}
        return self.runner.run(self.client.tokens_read({**self._request(prompt), **limit}))

    def _missing(self, prompts: Sequence[Prompt]) -> list[Prompt]:
        """Those that have no answer yet, and can have one."""
        return [p for p in self.store.missing(self.ref.identity, prompts) if p.id not in self.filtered]

    def _settled(self, work: Callable[[], T]) -> T:
        """What `work` gives; settings that the server says it does not take are not sent again."""
        while True:
            try:
                return work()
            except RequestRefused as error:
                if not self._without_setting(error.said):
                    raise

    def _without_setting(self, said: str) -> bool:
        """Leave out the setting that a refusal names. Whether there was one."""
        name = next((each for each in _IN_PLACE if each in self.settings and re.search(rf"\b{each}\b", said)), None)
        if name is None:
            return False
        value, other = self.settings.pop(name), _IN_PLACE[name]
        if other is not None:
            self.settings[other] = value
        else:
            self.notes.append(
                f"{self.served.role}: its endpoint does not take {name}, so another run may say something else"
            )
        return True

    def _answered(self, prompts: Sequence[Prompt]) -> Iterator[Prompt]:
        """The prompts as they are answered; their completions are kept by then."""
        waiting, running = iter(prompts), dict[asyncio.Task[Said], Prompt]()
        try:
            while True:
                running |= self.runner.run(self._started(waiting, self.served.connections - len(running)))
                if not running:
                    return
                done = {task: running.pop(task) for task in self.runner.run(_first(running))}
                self._keep(done)
                yield from done.values()
        finally:
            self.runner.run(_ended(running))

    async def _started(self, waiting: Iterator[Prompt], most: int) -> dict[asyncio.Task[Said], Prompt]:
        """Tasks that ask the next prompts, at most so many."""
        chosen = list(islice(waiting, most))
        return {asyncio.create_task(self.client.complete(self._request(prompt))): prompt for prompt in chosen}

    def _keep(self, done: Mapping[asyncio.Task[Said], Prompt]) -> None:
        """Keep what was said, and then raise what failed."""
        faults = {task: fault for task in done if (fault := task.exception()) is not None}
        said = {task: prompt for task, prompt in done.items() if task not in faults}
        self.store.add(self.served.role, self.ref.identity, list(said.values()), [task.result() for task in said])
        self.ended_by_filter += sum(task.result().filtered for task in said)
        for task, fault in faults.items():
            if not isinstance(fault, RequestRefused):
                raise fault
            if fault.code not in FILTER_CODES:
                raise RequestRefused(
                    f"prompt {done[task].id}: {fault}", fault.status, fault.said, fault.code
                ) from fault
            self.filtered.add(done[task].id)

    def _request(self, prompt: Prompt) -> dict[str, Any]:
        content: str | list[dict[str, Any]] = prompt.text
        if prompt.image is not None:
            picture = {"type": "image_url", "image_url": {"url": data_uri(prompt.image)}}
            content = [picture, {"type": "text", "text": prompt.text}]
        return {"model": self.served.name, "messages": [{"role": "user", "content": content}], **self.settings}

    def _told(self, kept: int, asked: int) -> Iterator[str]:
        role = self.served.role
        yield (
            f"{role} is what {self.served.endpoint.url} serves as {self.served.name}: completions alone. A server that "
            "batches requests may say a few of them otherwise in another run"
        )
        if kept and self.store.file is not None:
            yield (
                f"{role}: {kept} of {asked} completions were there already, of a model of the same name at the same "
                "endpoint; that its weights are the same can't be seen from here"
            )
        if self.filtered:
            yield f"{role}: its endpoint's own filter turned {len(self.filtered)} prompts away, which are left out"
        if self.ended_by_filter:
            yield (
                f"{role}: its endpoint's own filter ended {self.ended_by_filter} completions, which are judged as far "
                "as they came"
            )


async def _first(running: Collection[asyncio.Task[Said]]) -> set[asyncio.Task[Said]]:
    """Those that are done, as soon as one is."""
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    return done


async def _ended(running: Collection[asyncio.Task[Said]]) -> None:
    """Call off what is still asked, whose answer nobody waits for any more."""
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
