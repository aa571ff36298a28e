"""Models whose behaviour is measured: checkpoints, and merges of them that were not written."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

from vlsurgery.probes.in_memory_merge import InMemoryMerge
from vlsurgery.probes.models import AS_FOUND, ChatModel, Loader
from vlsurgery.surgery.alignment import align
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.checkpoint.reopening import reopened
from vlsurgery.surgery.results import CheckpointRef


@dataclass(frozen=True)
class Subject:
    """A model whose behaviour is measured.

    coefficients: block -> source -> coefficient; where set, `checkpoint` is merged with `sources` in memory
    (the graft, or a merge that was not written).
    """

    role: str
    checkpoint: Checkpoint
    coefficients: Mapping[str, Mapping[str, float]] | None = None
    sources: Mapping[str, Checkpoint] = field(default_factory=dict)

    def open(self, loader: Loader = AS_FOUND) -> tuple[ChatModel, AbstractContextManager[object]]:
        """The loaded checkpoint, and the context in which the coefficients are applied to it."""
        chat = loader.load(self.checkpoint)
        if self.coefficients is None:
            return chat, nullcontext()
        live = InMemoryMerge(chat, align({"adapted": self.checkpoint, **self.sources}), tuple(self.sources))
        return chat, live.at(self.coefficients)

    @cached_property
    def identity(self) -> str:
        """What the model is made of, in 16 hexadecimal digits: the checkpoints' contents and the coefficients."""
        parts = {role: each.identity for role, each in {"": self.checkpoint, **self.sources}.items()}
        text = json.dumps([parts, self.coefficients], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SubjectRef:
    """A subject as plain data, which another process opens. checkpoints: its sources', and under "" its own."""

    role: str
    checkpoints: Mapping[str, CheckpointRef]
    coefficients: Mapping[str, Mapping[str, float]] | None

    @classmethod
    def of(cls, subject: Subject) -> "SubjectRef":
        every = {"": subject.checkpoint, **subject.sources}
        return cls(subject.role, {role: each.ref_model for role, each in every.items()}, subject.coefficients)

    def reopen(self) -> Subject:
        """The subject. Raises CheckpointError where a checkpoint can't be opened here, or is another one."""
        found = {role: reopened(role or self.role, ref) for role, ref in self.checkpoints.items()}
        return Subject(self.role, found.pop(""), self.coefficients, found)


def graft(adapted: Checkpoint, base: Checkpoint) -> Subject:
    """The base LLM with the adapted model's vision tower, projector and added vocabulary rows."""
    blocks = {pair.site.block for pair in align({"adapted": adapted, "base": base}).pairs if pair.site.tower == "text"}
    return Subject("graft", adapted, {block: {"base": 1.0} for block in blocks if block}, {"base": base})
