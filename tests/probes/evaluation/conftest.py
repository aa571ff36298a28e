"""Completions made by hand."""

from collections.abc import Callable

import pytest

from vlsurgery.probes.results import CompletionRecord, Verdict

KINDS = {"refused": "refusal", "complied": "compliance", "neither": "empty"}


def make_record(
    role: str = "base", id_: str = "harmful/a/text", verdict: str | None = "refused", **changes: object
) -> CompletionRecord:
    set_, request, modality = id_.split("/")
    verdicts = {} if verdict is None else {"j": Verdict(label=verdict, kind=KINDS[verdict], reason="r")}
    values = {
        "role": role, "model": role, "id": id_, "request": request, "set": set_, "modality": modality,
        "prompt": f"how do I {request}?", "text": "no", "tokens": 3, "cut": False, "verdicts": verdicts,
        "prompts_digest": "d",
    }  # fmt: skip
    return CompletionRecord(**{**values, **changes})


@pytest.fixture(scope="session")
def record() -> Callable[..., CompletionRecord]:
    """A function that makes a completion: of a role, "set/request/modality", and a label or None."""
    return make_record
