"""Which tensors of several checkpoints are the same site: every pair, and every tensor without partner with
its reason."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from surgery.anatomy import Site, identify, ties_head
from surgery.checkpoint import Checkpoint, LazyTensor
from surgery.errors import AlignmentError
from surgery.results import SliceName, UnmatchedTensor
from surgery.stack import Shape

if TYPE_CHECKING:
    import torch

# Entries read of each tensor at a time: small enough for any memory, large enough that reading is sequential.
CHUNK: Final = 1 << 22

EMBED: Final = Site("text", None, "embed")
HEAD: Final = Site("text", None, "head")

# Sites with a row per token: here, and only here, one model may have more rows than another.
VOCABULARY: Final = ("embed", "head", "head.bias")


@dataclass(frozen=True)
class Part:
    """The tensor `name` of one role; `rows`: a slice per dimension where only a part of it belongs to the pair."""

    name: str
    rows: tuple[slice, ...] | None = None

    def label(self) -> str | SliceName:
        """How result files name it."""
        if self.rows is None:
            return self.name
        return SliceName(name=self.name, slice=[(part.start, part.stop) for part in self.rows])


@dataclass(frozen=True)
class Aligned:
    """One site that `like` and at least one other role share. `shape`: of what they share; the same in every role."""

    site: Site
    shape: Shape
    parts: Mapping[str, Part]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Alignment:
    """What checkpoints share.

    like: the role whose tensors the others are matched with. pairs: sorted by site. unmatched: every tensor
    of every role that is in no pair. stale_heads: role -> a head in the file of a model that ties its head to
    the embedding. notes: what a reader should know (vocabulary that grew, stale heads).
    """

    checkpoints: Mapping[str, Checkpoint]
    like: str
    pairs: tuple[Aligned, ...]
    unmatched: tuple[UnmatchedTensor, ...]
    stale_heads: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def tensor(self, aligned: Aligned, role: str) -> LazyTensor:
        return self.checkpoints[role][aligned.parts[role].name]

    def load(self, aligned: Aligned, role: str) -> "torch.Tensor":
        """The shared part of one role's tensor, of shape `aligned.shape`."""
        return self.read(aligned, role, 0, aligned.numel).reshape(aligned.shape)

    def read(self, aligned: Aligned, role: str, start: int, stop: int) -> "torch.Tensor":
        """Entries `start` to `stop` of the shared part in row-major order, as a vector."""
        part = aligned.parts[role]
        first = 0 if part.rows is None else part.rows[0].start * math.prod(aligned.shape[1:])
        return self.tensor(aligned, role).read(first + start, first + stop)

    def chunks(
        self, aligned: Aligned, roles: Iterable[str] | None = None, size: int = CHUNK
    ) -> Iterator[dict[str, "torch.Tensor"]]:
        """The shared part, role -> vector, at most `size` entries at a time; of all roles, or of those named."""
        wanted = list(aligned.parts if roles is None else roles)
        for start in range(0, aligned.numel, size):
            stop = min(start + size, aligned.numel)
            yield {role: self.read(aligned, role, start, stop) for role in wanted}

    def label(self, aligned: Aligned, role: str) -> str:
        """How an error names one role's tensor."""
        return f"{role} ({self.checkpoints[role].ref}): tensor {aligned.parts[role].name}"

    def in_file_order(self) -> list[Aligned]:
        """The pairs as `like` stores them, so that reading them one after another moves forward through its files."""
        return sorted(self.pairs, key=lambda pair: _place(self.tensor(pair, self.like)))


def align(checkpoints: Mapping[str, Checkpoint], like: str = "adapted") -> Alignment:
    """Match every tensor of `like` with its partners in the other roles, by site and never by raw name.

    checkpoints: role -> checkpoint; at least `like` and one other. Text sites are expected in every role;
    vision tower and projector pair where both have one. Where the vocabulary differs in size, the rows that
    all share are the pair.

    Raises AlignmentError when text stacks differ in depth or width, when a tensor of the text stack differs
    in shape, or when weights are quantised: nothing is paired by force.
    """
    if like not in checkpoints or len(checkpoints) < 2:
        raise AlignmentError(f"an alignment needs {like!r} and another role; it was given {', '.join(checkpoints)}.")
    roles: dict[str, dict[Site, str]] = {}
    for role, checkpoint in checkpoints.items():
        if checkpoint.quantised:
            raise AlignmentError(
                f"{role} ({checkpoint.ref}) is quantised ({checkpoint.quantised}). "
                "Give the checkpoint that it was quantised from."
            )
        try:
            sites = identify(checkpoint.shapes, checkpoint.config)
        except AlignmentError as error:
            raise AlignmentError(f"{role} ({checkpoint.ref}): {error}.") from error
        roles[role] = {site: name for name, site in sites.items()}
    _check_stacks(checkpoints, roles, like)
    return _Matcher(checkpoints, roles, like).alignment()


class _Matcher:
    """The state of one alignment while it is made."""

    def __init__(self, checkpoints: Mapping[str, Checkpoint], roles: dict[str, dict[Site, str]], like: str) -> None:
        self.checkpoints = checkpoints
        self.roles = roles
        self.like = like
        self.notes: list[str] = []
        self.stale: dict[str, str] = {}
        self.reasons: dict[tuple[str, str], str] = {}

    def alignment(self) -> Alignment:
        for role in sorted(self.roles, key=lambda role: role != self.like):
            self._tie_head(role)
        found = (self._pair(site) for site in sorted(self.roles[self.like], key=lambda site: site.order))
        pairs = tuple(pair for pair in found if pair is not None)
        matched = {(role, part.name) for pair in pairs for role, part in pair.parts.items()}
        unmatched = [
            UnmatchedTensor(role=role, name=name, reason=self.reasons.get((role, name)) or self._reason(role, site))
            for role, sites in self.roles.items()
            for site, name in sites.items()
            if (role, name) not in matched
        ]
        unmatched += [
            UnmatchedTensor(role=role, name=name, reason="stale: the config ties the head to the embedding")
            for role, name in self.stale.items()
        ]
        return Alignment(self.checkpoints, self.like, pairs, tuple(unmatched), self.stale, tuple(self.notes))

    def _tie_head(self, role: str) -> None:
        """In a model that ties them, the head is the embedding; a head in its file is stale."""
        sites, checkpoint = self.roles[role], self.checkpoints[role]
        if not ties_head(checkpoint, sites):
            return
        stale = sites.pop(HEAD, None)
        if stale is not None:
            self.stale[role] = stale
            differs = EMBED in sites and not _same_bytes(checkpoint[stale], checkpoint[sites[EMBED]])
            self.notes.append(
                f"{role}: {stale} is stale, because the config ties the head to the embedding; it is left out"
                + ("; it differs from the embedding, and transformers would have used it." if differs else ".")
            )
        if role != self.like and EMBED in sites and HEAD in self.roles[self.like]:
            sites[HEAD] = sites[EMBED]

    def _pair(self, site: Site) -> Aligned | None:
        """The pair at a site of `like`, or None with a reason in `self.reasons`."""
        names = {role: sites[site] for role, sites in self.roles.items() if site in sites}
        if len(names) < 2:
            return None
        tensors = {role: self.checkpoints[role][name] for role, name in names.items()}
        if site.tower == "text" and site.component in VOCABULARY:
            return self._vocabulary_pair(site, tensors)
        reason = self._difference(site, tensors)
        if reason:
            self.reasons.update(dict.fromkeys(names.items(), reason))
            return None
        return Aligned(site, tensors[self.like].shape, {role: Part(name) for role, name in names.items()})

    def _difference(self, site: Site, tensors: dict[str, LazyTensor]) -> str | None:
        """Why the tensors of a site can't be a pair; an error where the text stack must agree."""
        shape = tensors[self.like].shape
        for role, tensor in tensors.items():
            if not tensor.is_float:
                return f"{tensor.dtype_name} values are not weights to compare or combine"
            if tensor.shape != shape:
                fault = f"{tensor.name} is {_by(tensor.shape)} in {role}, {_by(shape)} in {self.like}"
                if site.tower != "text":
                    return f"shapes differ: {fault}"
                raise AlignmentError(
                    f"{fault} ({site.key}): {role} ({self.checkpoints[role].ref}) is not a relative of "
                    f"{self.like} ({self.checkpoints[self.like].ref}). Check that they are the right checkpoints."
                )
        return None

    def _vocabulary_pair(self, site: Site, tensors: dict[str, LazyTensor]) -> Aligned:
        """The rows that every role has. Adapting a model appends rows (image tokens, padding), so the first
        ones are the tokens of the base."""
        widths = {tensor.shape[1:] for tensor in tensors.values()}
        if len(widths) > 1:
            sizes = ", ".join(f"{_by(tensor.shape)} in {role}" for role, tensor in tensors.items())
            raise AlignmentError(f"{site.key} differs in width: {sizes}. Check that these are the right checkpoints.")
        rows = min(tensor.shape[0] for tensor in tensors.values())
        shape = (rows, *widths.pop())
        common = tuple(slice(0, extent) for extent in shape)
        for role, tensor in tensors.items():
            if tensor.shape[0] > rows:
                self.notes.append(
                    f"{site.key}: {role} has {tensor.shape[0]} rows, of which the first {rows} are shared and "
                    f"{tensor.shape[0] - rows} are its own."
                )
        parts = {role: Part(tensor.name, None if tensor.shape == shape else common) for role, tensor in tensors.items()}
        return Aligned(site, shape, parts)

    def _reason(self, role: str, site: Site) -> str:
        """Why a tensor of `role` found no partner: what was looked for, and where."""
        others = [other for other in self.roles if other != role] if role == self.like else [self.like]
        with_tower = [other for other in others if any(found.tower == site.tower for found in self.roles[other])]
        if not with_tower:
            place = {"projector": "projector", "other": "part of this kind"}.get(site.tower, f"{site.tower} tower")
            return f"{' and '.join(others)} {'has' if len(others) == 1 else 'have'} no {place}"
        if site == HEAD and role != self.like:
            return f"{self.like} has no head of its own: it ties it to the embedding, or leaves it out"
        return f"{' and '.join(with_tower)} {'has' if len(with_tower) == 1 else 'have'} no {site.key}"


def _check_stacks(checkpoints: Mapping[str, Checkpoint], roles: dict[str, dict[Site, str]], like: str) -> None:
    """Text stacks must agree in depth and width before any tensor is matched."""
    facts = {role: _depth_and_width(checkpoints[role], sites) for role, sites in roles.items()}
    for role, (depth, width) in facts.items():
        if (depth, width) != facts[like]:
            raise AlignmentError(
                f"{like} and {role} share no text stack: {like} ({checkpoints[like].ref}) has {facts[like][0]} layers "
                f"of width {facts[like][1]}, {role} ({checkpoints[role].ref}) has {depth} of width {width}. "
                "Give checkpoints that descend from one language model."
            )


def _depth_and_width(checkpoint: Checkpoint, sites: dict[Site, str]) -> tuple[int, int]:
    depth = 1 + max(site.layer for site in sites if site.tower == "text" and site.layer is not None)
    for site in (Site("text", None, "norm.final"), EMBED, HEAD):
        if site in sites:
            return depth, checkpoint[sites[site]].shape[-1]
    return depth, 0


def _same_bytes(first: LazyTensor, second: LazyTensor) -> bool:
    if (first.shape, first.code) != (second.shape, second.code):
        return False
    starts = range(0, first.numel, CHUNK)
    return all(
        first.read(start, min(start + CHUNK, first.numel)).equal(second.read(start, min(start + CHUNK, first.numel)))
        for start in starts
    )


def _place(tensor: LazyTensor) -> tuple[str, int]:
    return str(tensor.shard), tensor.offset


def _by(shape: Shape) -> str:
    return " x ".join(map(str, shape)) or "a scalar"
