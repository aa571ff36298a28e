"""What an endpoint's replies say: a completion, a fault, the names of its models. Nothing in them is trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from vlsurgery.probes.evaluation.completion_store import Said
from vlsurgery.probes.thoughts import as_thought
from vlsurgery.surgery.runtime.bounded_json import parse_json
from vlsurgery.surgery.runtime.excerpts import excerpt

MAX_SAID: Final = 300  # letters of a server's message in ours
MAX_MODELS: Final = 10_000

# Why a completion ended, by the servers' words. `abort` is none: the server was stopped meanwhile.
_CUT: Final = ("length", "max_tokens", "model_length")
_FILTERED: Final = "content_filter"
_ABORTED: Final = ("abort", "error", "cancelled")

# Where servers put what the model thought before it answered.
_THOUGHTS: Final = ("reasoning_content", "reasoning")


@dataclass(frozen=True)
class FaultTold:
    """What a server says of a fault. said: its message, on one line; code: its own word; either may be empty."""

    said: str
    code: str


def read_completion(body: bytes, limit: int) -> Said:
    """The first completion of a reply of /chat/completions. limit: the tokens that it may have.

    Thoughts that the server has set apart stand in its text between their marks, as in those of models that run here.
    Raises ValueError of one line for a reply that holds none.
    """
    reply = _mapping(parse_json(body), "a reply")
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError(f"expected choices, found {excerpt(choices)}")
    choice = _mapping(choices[0], "a choice")
    reason, told = choice.get("finish_reason"), _tokens(reply, "completion_tokens")
    if reason in _ABORTED:
        raise ValueError(f"the server gave the completion up ({reason})")
    answer, thought = _parts(_mapping(choice.get("message"), "a message"))
    cut = reason in _CUT or (reason is None and told is not None and told >= limit)
    text = as_thought(thought, answer, is_open=cut and not answer) if thought else answer
    # A cut one has all the tokens that there may be; servers count the end token or not.
    tokens = limit if cut else min(limit, len(text.split()) if told is None else told)
    return Said(_sound(text.strip()), tokens, cut, reason == _FILTERED)


def read_prompt_tokens(body: bytes) -> int | None:
    """How many tokens the server has read of a request, its pictures' included; None where it does not say.

    Raises ValueError of one line for what is no reply.
    """
    return _tokens(_mapping(parse_json(body), "a reply"), "prompt_tokens")


def read_fault(body: bytes) -> FaultTold:
    """What a reply with an error status says; of one that is no JSON, its beginning."""
    try:
        reply = parse_json(body)
    except ValueError:
        return FaultTold(_line(body.decode("utf-8", "replace")), "")
    held = reply.get("error", reply) if isinstance(reply, dict) else reply
    if not isinstance(held, dict):
        return FaultTold(_line(held if isinstance(held, str) else excerpt(held, MAX_SAID)), "")
    said = next((held[key] for key in ("message", "detail", "error") if held.get(key)), "")
    code = next((held[key] for key in ("code", "type") if isinstance(held.get(key), str)), "")
    return FaultTold(_line(said if isinstance(said, str) else excerpt(said, MAX_SAID)), code)


def read_models(body: bytes) -> dict[str, str]:
    """Name -> what the server says that the model is (vLLM: the path or Hub id that it was started with).

    Raises ValueError of one line for what is no list of models.
    """
    listed = _mapping(parse_json(body), "a list of models").get("data")
    if not isinstance(listed, list) or len(listed) > MAX_MODELS:
        raise ValueError(f"expected a list of models, found {excerpt(listed)}")
    found = {}
    for each in listed:
        if isinstance(each, dict) and isinstance(each.get("id"), str):
            found[each["id"]] = each["root"] if isinstance(each.get("root"), str) else each["id"]
    return found


def _parts(message: Mapping[str, Any]) -> tuple[str, str]:
    """The answer of a message, and its thought; each may be empty."""
    thought = next((message[key] for key in _THOUGHTS if message.get(key)), "")
    if not isinstance(thought, str):
        raise ValueError(f"expected a thought as text, found {excerpt(thought)}")
    content = message.get("content")
    if content is None:
        content = message.get("refusal") or ""
    if isinstance(content, list):
        content = "".join(_text_of(part) for part in content)
    if not isinstance(content, str):
        raise ValueError(f"expected content as text, found {excerpt(content)}")
    return content.strip(), thought.strip()


def _text_of(part: object) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    raise ValueError(f"expected parts of text, found {excerpt(part)}")


def _sound(text: str) -> str:
    """The text with a replacement character for each half of a surrogate pair, which no file can hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _tokens(reply: Mapping[str, Any], kind: str) -> int | None:
    """A count of the reply's usage; None where it does not say."""
    usage = reply.get("usage")
    count = usage.get(kind) if isinstance(usage, dict) else None
    return count if type(count) is int and count >= 0 else None


def _mapping(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected {what}, found {excerpt(value)}")
    return value


def _line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= MAX_SAID else f"{words[: MAX_SAID - 1]}…"
