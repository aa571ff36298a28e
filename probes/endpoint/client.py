"""Requests to an endpoint, within bounds: of time, of bytes, of attempts; and to no other server than this."""

import asyncio
import json
import random
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.metadata import version
from typing import Any, Final, Self, TypeVar

import httpx

from vlsurgery.probes.endpoint.address import Endpoint
from vlsurgery.probes.endpoint.errors import EndpointError, RequestRefused, TransientFault
from vlsurgery.probes.endpoint.replies import read_completion, read_fault, read_models, read_prompt_tokens
from vlsurgery.probes.evaluation.completion_store import Said

T = TypeVar("T")

MAX_REPLY_BYTES: Final = 1 << 24  # a completion of 100,000 tokens has less than a million
MAX_ATTEMPTS: Final = 6  # of a request; those that a rate limit turns away count anew once another one is answered
CONNECT_SECONDS: Final = 10.0
MAX_WAIT_SECONDS: Final = 300.0  # the longest that a server may order before the next attempt
MAX_BACKOFF_SECONDS: Final = 30.0
FIRST_BACKOFF_SECONDS = 0.5

# A whole reply must be there after so long; servers queue requests, and small machines write a token a second.
QUEUE_SECONDS = 120.0
SECONDS_A_TOKEN = 1.0

# Statuses that may go away by themselves. 529 is "overloaded" of some providers.
TRANSIENT: Final = (408, 409, 425, 429, 500, 502, 503, 504, 529)
RATE_LIMIT: Final = 429

# What a Retry-After header holds that is no date; some servers send fractions.
_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")

# Words of servers that fail with status 500 where a model takes no pictures; it won't go away.
_NO_PICTURES: Final = ("image", "mmproj", "multimodal", "multi-modal", "vision")


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


class EndpointClient:
    """Asks one endpoint; to be used inside of one event loop, and closed.

    model: its name there. tokens: of a completion, at most.
    """

    def __init__(self, endpoint: Endpoint, model: str, tokens: int, connections: int) -> None:
        self.endpoint = endpoint
        self.model = model
        self.tokens = tokens
        self._seconds = QUEUE_SECONDS + SECONDS_A_TOKEN * tokens
        self._answered = 0
        self._not_before = 0.0  # of the loop's clock: until then the server wants no request
        self._http = httpx.AsyncClient(
            headers=_headers(endpoint),
            timeout=httpx.Timeout(self._seconds, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,
            verify=_trusted(),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def models(self) -> dict[str, str] | None:
        """The models that the server lists, see `read_models`; None where it lists none. The first contact.

        Raises EndpointError where nothing answers, or the key is wrong.
        """
        try:
            reply = await self._once("GET", "/models", None)
        except TransientFault as fault:
            raise EndpointError(
                f"{self.endpoint.url}: nothing answers there ({self._clean(str(fault))}). Start the server (vllm serve "
                "MODEL), or mend --endpoint."
            ) from fault
        if reply.status == 401 or 300 <= reply.status < 400:
            raise self._fault(reply, None)
        try:
            return read_models(reply.body) if reply.status == 200 else None
        except ValueError:
            return None  # gateways that list no models answer with a page, or anything

    async def complete(self, request: Mapping[str, Any]) -> Said:
        """The completion of one request. Raises as `tokens_read`."""
        said = await self._answer(request, lambda reply: read_completion(reply, self.tokens))
        return replace(said, text=self._clean(said.text))

    async def tokens_read(self, request: Mapping[str, Any]) -> int | None:
        """How many tokens the server reads of a request; None where it does not say.

        Raises RequestRefused where the server does not take this request, and EndpointError where it fails for good.
        """
        return await self._answer(request, read_prompt_tokens)

    async def _answer(self, request: Mapping[str, Any], read: Callable[[bytes], T]) -> T:
        """What is read of the reply to a request; faults that may go away are waited for."""
        body, attempt, seen = json.dumps(request).encode(), 0, -1
        while True:
            attempt += 1
            await self._until_allowed()
            try:
                answer = await self._tried(body, read)
            except TransientFault as fault:
                if fault.status == RATE_LIMIT and self._answered > seen:
                    attempt = 1
                seen = self._answered
                if attempt >= MAX_ATTEMPTS:
                    raise EndpointError(
                        f"{self.endpoint.url}: {self._clean(str(fault))}, {MAX_ATTEMPTS} times in a row. Completions "
                        f"so far are kept where --completions names a file. {_advice(fault)}"
                    ) from fault
                await self._back_off(fault, attempt)
            else:
                self._answered += 1
                return answer

    async def _tried(self, body: bytes, read: Callable[[bytes], T]) -> T:
        reply = await self._once("POST", "/chat/completions", body)
        if reply.status != 200:
            listed = await self.models() if reply.status == 404 else None
            raise self._fault(reply, listed)
        try:
            return read(reply.body)
        except ValueError as error:
            raise TransientFault(f"the reply is no completion ({error})") from error

    async def _once(self, method: str, path: str, body: bytes | None) -> _Reply:
        """One request, its reply read whole. Raises TransientFault where none came, EndpointError for one too long."""
        try:
            async with (
                asyncio.timeout(self._seconds),
                self._http.stream(method, f"{self.endpoint.url}{path}", content=body) as response,
            ):
                return _Reply(response.status_code, response.headers, await self._body(response))
        except (TimeoutError, httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout) as error:
            raise TransientFault(f"no whole reply in {self._seconds:.0f} seconds") from error
        except httpx.TransportError as error:
            raise TransientFault(f"the connection failed ({str(error) or type(error).__name__})") from error
        except (httpx.InvalidURL, UnicodeError) as error:
            raise EndpointError(f"--endpoint {self.endpoint.url}: no URL ({error}). Mend it.") from error

    async def _body(self, response: httpx.Response) -> bytes:
        """The body as it is sent, up to MAX_REPLY_BYTES."""
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise EndpointError(
                f"{self.endpoint.url}: the reply is compressed ({self._clean(encoding)[:40]}), which was not asked "
                "for. Look at proxies before the server."
            )
        pieces, size = [], 0
        async for piece in response.aiter_raw():
            size += len(piece)
            if size > MAX_REPLY_BYTES:
                raise EndpointError(
                    f"{self.endpoint.url}: a reply has more than {MAX_REPLY_BYTES} bytes, which is more than any "
                    "completion. Check that --endpoint is a server of models."
                )
            pieces.append(piece)
        return b"".join(pieces)

    def _fault(self, reply: _Reply, listed: Mapping[str, str] | None) -> Exception:
        """What a reply with another status than 200 means. listed: the server's models, where it said them."""
        told = read_fault(reply.body)
        said = self._clean(told.said)
        where, found = self.endpoint.url, f"{reply.status}: {said}" if said else f"status {reply.status}"
        if reply.status in TRANSIENT and told.code != "insufficient_quota":
            if reply.status in (500, 501) and any(word in said.lower() for word in _NO_PICTURES):
                return RequestRefused(f"{where}: the server does not take a request ({found}).", 500, said, told.code)
            return self._transient(reply, found)
        if 300 <= reply.status < 400:
            place = self._clean(reply.headers.get("Location", "nowhere"))[:200]
            return EndpointError(f"{where}: sends on to {place}, which is not followed. Give the right --endpoint.")
        if reply.status in (401, 403):
            way = f"put a key into {self.endpoint.variable}, or name its variable with --api-key-env"
            if self.endpoint.key is not None:
                way = f"put the right one into {self.endpoint.variable}"
            return EndpointError(
                f"{where}: the server does not take the key, or wants one ({found}). To mend it, {way}."
            )
        if reply.status == 404:
            names = ", ".join(self._clean(name) for name in listed or ())
            way = f"It serves: {names}. Name one with --model." if names else f"Check --model, and the path of {where}."
            return EndpointError(f"{where}: no model {self.model} there ({found}). {way}")
        return RequestRefused(f"{where}: the server does not take a request ({found}).", reply.status, said, told.code)

    def _transient(self, reply: _Reply, found: str) -> Exception:
        wait = _retry_after(reply.headers.get("Retry-After", ""))
        if wait is not None and wait > MAX_WAIT_SECONDS:
            return EndpointError(
                f"{self.endpoint.url}: the server wants no request for {wait:.0f} seconds ({found}). Run the same "
                "command again then; completions so far are kept where --completions names a file."
            )
        return TransientFault(f"the server answers {found}", reply.status, wait)

    def _clean(self, text: str) -> str:
        return self.endpoint.without_key(text)

    async def _until_allowed(self) -> None:
        loop = asyncio.get_running_loop()
        while (wait := self._not_before - loop.time()) > 0:
            await asyncio.sleep(wait)

    async def _back_off(self, fault: TransientFault, attempt: int) -> None:
        """Wait before the next attempt; what the server orders, all requests wait for."""
        if fault.wait is not None:
            at = asyncio.get_running_loop().time() + fault.wait
            self._not_before = max(self._not_before, at)
            return
        longest = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** (attempt - 1))
        await asyncio.sleep(longest * (0.5 + random.random() / 2))


@cache
def _trusted() -> ssl.SSLContext:
    """The certificates that are trusted; to read them takes longer than a request."""
    return httpx.create_ssl_context()


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": f"vlsurgery/{version('vlsurgery')}",
    }
    return headers if endpoint.key is None else {**headers, "Authorization": f"Bearer {endpoint.key}"}


def _retry_after(text: str) -> float | None:
    """Seconds that a Retry-After header orders, which may be a date; None where it says nothing that is a time."""
    if _SECONDS.fullmatch(text.strip()):
        return float(text)
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _advice(fault: TransientFault) -> str:
    if fault.status == RATE_LIMIT:
        return "Run the same command again later, or with fewer --connections."
    return "Look at the server, then run the same command again."
