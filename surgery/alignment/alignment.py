"""Which tensors of several checkpoints are the same site: every pair, and every tensor without partner with
its reason."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from vlsurgery.surgery.alignment.content_matching import Correspondence
from vlsurgery.surgery.alignment.similarity import Likeness
from vlsurgery.surgery.architecture.decoder_stack import DecoderConfig, Shape
from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.layouts import SiteViews, TensorView, split_fused
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import FLOATS, Checkpoint, LazyTensor
from vlsurgery.surgery.checkpoint.anatomy import ties_head
from vlsurgery.surgery.errors import AlignmentError
from vlsurgery.surgery.results import UnmatchedTensor
from vlsurgery.surgery.runtime.gc_pause import gc_paused

if TYPE_CHECKING:
    import numpy as np
    import torch

# Entries read of each tensor at a time: small enough for any memory, large enough that reading is sequential.
CHUNK: Final = 1 << 22

# Sites whose matrix some layouts store the other way round.
ROUTERS: Final = ("mlp.router", "vision_router")

EMBED: Final = Site("text", None, "embed")
HEAD: Final = Site("text", None, "head")

# Sites with a row per token: here, and only here, one model may have more rows than another.
VOCABULARY: Final = (
    "embed",
    "embed.new",
    "head",
    "head.bias",
)


class Aligned(NamedTuple):
    """One site that `like` and at least one other role share. `shape`: of what they share; the same in every role."""

    site: Site
    shape: Shape
    parts: Mapping[str, TensorView]

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
        part, tensor = aligned.parts[role], self.tensor(aligned, role)
        if not part.is_contiguous(tensor.shape):
            return self._scattered(aligned, role)[start:stop]
        first, _ = part.span(tensor.shape)
        return tensor.read(first + start, first + stop)

    def array(
        self, aligned: Aligned, role: str, start: int, stop: int, out: "np.ndarray | None" = None
    ) -> "np.ndarray":
        """What `read` gives, for numpy: bfloat16 by its bits, as uint16. out: a vector of that dtype and length; it
        then holds what is given, where that is a run of the tensor's entries."""
        part, tensor = aligned.parts[role], self.tensor(aligned, role)
        first, size = part.span(tensor.shape)
        if part.is_contiguous(tensor.shape):
            return tensor.array(first + start, first + stop, out)
        return part.view(tensor.array(first, first + size), tensor.shape).reshape(-1)[start:stop]

    def chunks(
        self, aligned: Aligned, roles: Iterable[str] | None = None, size: int = CHUNK
    ) -> Iterator[dict[str, "torch.Tensor"]]:
        """The shared part, role -> vector, at most `size` entries at a time; of all roles, or of those named.

        A part whose entries are scattered over its tensor (one expert's columns) is read once, as a whole.
        """
        wanted = list(aligned.parts if roles is None else roles)
        scattered = {
            role: self._scattered(aligned, role)
            for role in wanted
            if not aligned.parts[role].is_contiguous(self.tensor(aligned, role).shape)
        }
        for start in range(0, aligned.numel, size):
            stop = min(start + size, aligned.numel)
            yield {
                role: scattered[role][start:stop] if role in scattered else self.read(aligned, role, start, stop)
                for role in wanted
            }

    def _scattered(self, aligned: Aligned, role: str) -> "torch.Tensor":
        """A part that is no run of its tensor's entries, as a vector."""
        part, tensor = aligned.parts[role], self.tensor(aligned, role)
        start, size = part.span(tensor.shape)
        return part.view(tensor.read(start, start + size), tensor.shape).reshape(-1)

    def among(self, roles: Iterable[str]) -> "Alignment":
        """The alignment of some of its roles, `like` among them.

        Roles whose tensors have the very shapes of a role that stays are taken out of the pairs; otherwise (they may
        have limited the vocabulary rows that all share) the open checkpoints are aligned again.
        """
        kept = {role: checkpoint for role, checkpoint in self.checkpoints.items() if role in set(roles)}
        if len(kept) == len(self.checkpoints):
            return self
        shapes = [checkpoint.shapes for checkpoint in kept.values()]
        if not all(checkpoint.shapes in shapes for role, checkpoint in self.checkpoints.items() if role not in kept):
            return align(kept, self.like)
        parts = ((pair, {role: part for role, part in pair.parts.items() if role in kept}) for pair in self.pairs)
        return replace(
            self,
            checkpoints=kept,
            pairs=tuple(pair._replace(parts=found) for pair, found in parts if len(found) > 1),
            unmatched=tuple(each for each in self.unmatched if each.role in kept),
            stale_heads={role: head for role, head in self.stale_heads.items() if role in kept},
        )

    def label(self, aligned: Aligned, role: str) -> str:
        """How an error names one role's tensor."""
        return f"{role} ({self.checkpoints[role].ref}): tensor {aligned.parts[role].name}"

    def in_file_order(self) -> list[Aligned]:
        """The pairs as `like` stores them, so that reading them one after another moves forward through its files."""
        return sorted(self.pairs, key=lambda pair: _place(self.tensor(pair, self.like)))


@gc_paused()
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
    roles: dict[str, SiteViews] = {}
    shapes = {role: checkpoint.shapes for role, checkpoint in checkpoints.items()}
    for role, checkpoint in checkpoints.items():
        if checkpoint.quantised:
            raise AlignmentError(
                f"{role} ({checkpoint.ref}) is quantised ({checkpoint.quantised}). "
                "Give the checkpoint that it was quantised from."
            )
        twin = _twin(role, checkpoints, shapes, roles)
        if twin is not None:
            roles[role] = dict(roles[twin])
            continue
        try:
            sites = identify(shapes[role], checkpoint.config)
        except AlignmentError as error:
            raise AlignmentError(f"{role} ({checkpoint.ref}): {error}.") from error
        roles[role] = {site: TensorView(name) for name, site in sites.items()}
    _check_stacks(checkpoints, roles, like)
    return _Matcher(checkpoints, roles, shapes, like).alignment()


def _twin(
    role: str, checkpoints: Mapping[str, Checkpoint], shapes: Mapping[str, Mapping[str, Shape]], known: Iterable[str]
) -> str | None:
    """A role with the very same names and shapes, whose sites are therefore this one's as well."""
    facts = DecoderConfig.of(checkpoints[role].config)
    return next(
        (
            other
            for other in known
            if shapes[other] == shapes[role] and DecoderConfig.of(checkpoints[other].config) == facts
        ),
        None,
    )


class _Matcher:
    """The state of one alignment while it is made."""

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        roles: dict[str, SiteViews],
        shapes: Mapping[str, Mapping[str, Shape]],
        like: str,
    ) -> None:
        self.checkpoints = checkpoints
        self.roles = roles
        self.shapes = shapes
        self.like = like
        self.notes: list[str] = []
        self.stale: dict[str, str] = {}
        self.reasons: dict[tuple[str, Site], str] = {}
        self._all_float = all(
            FLOATS.issuperset(checkpoint.safetensors_dtypes.values()) for checkpoint in checkpoints.values()
        )

    def alignment(self) -> Alignment:
        for role in sorted(self.roles, key=lambda role: role != self.like):
            self._tie_head(role)
        others = [role for role in self.roles if self.shapes[role] != self.shapes[self.like]]
        if others:
            split_fused(self.roles, self.shapes)
        for role in others:
            self._correspond(role)
        found = (self._pair(site) for site in sorted(self.roles[self.like], key=lambda site: site.order))
        pairs = tuple(pair for pair in found if pair is not None)
        return Alignment(self.checkpoints, self.like, pairs, self._unmatched(pairs), self.stale, tuple(self.notes))

    def _correspond(self, role: str) -> None:
        def read(owner: str, part: TensorView, count: int) -> "torch.Tensor":
            tensor = self.checkpoints[owner][part.name]
            start, size = part.span(tensor.shape)
            if part.is_contiguous(tensor.shape):
                return tensor.read(start, start + min(count, size))
            return part.view(tensor.read(start, start + size), tensor.shape).reshape(-1)[:count]

        def is_weight(owner: str, part: TensorView) -> bool:
            tensor = self.checkpoints[owner][part.name]
            return tensor.is_float and tensor.numel > 0

        found = Correspondence(Likeness(self.like, role, self.roles, self.shapes, read), is_weight)
        try:
            found.settle()
        except AlignmentError as error:
            raise AlignmentError(f"{role} ({self.checkpoints[role].ref}): {error}.") from error
        self.reasons.update(found.reasons)

    def _unmatched(self, pairs: Iterable[Aligned]) -> tuple[UnmatchedTensor, ...]:
        """Every tensor that no pair takes anything of, once."""
        matched = {role: {pair.parts[role].name for pair in pairs if role in pair.parts} for role in self.roles}
        found = {}
        for role, sites in self.roles.items():
            taken = matched[role]
            for site, part in sites.items():
                if part.name not in taken and (role, part.name) not in found:
                    reason = self.reasons.get((role, site)) or self._reason(role, site)
                    found[role, part.name] = UnmatchedTensor(role=role, name=part.name, reason=reason)
        stale = [
            UnmatchedTensor(role=role, name=name, reason="stale: the config ties the head to the embedding")
            for role, name in self.stale.items()
        ]
        return (*found.values(), *stale)

    def _tie_head(self, role: str) -> None:
        """In a model that ties them, the head is the embedding; a head in its file is stale."""
        sites, checkpoint = self.roles[role], self.checkpoints[role]
        embed, head = (sites[site].name if site in sites else None for site in (EMBED, HEAD))
        if not ties_head(checkpoint, embed, head):
            return
        stale = sites.pop(HEAD, None)
        if stale is not None:
            self.stale[role] = stale.name
            differs = EMBED in sites and not _same_bytes(checkpoint[stale.name], checkpoint[sites[EMBED].name])
            self.notes.append(
                f"{role}: {stale.name} is stale, because the config ties the head to the embedding; it is left out"
                + ("; it differs from the embedding, and transformers would have used it." if differs else ".")
            )
        if role != self.like and EMBED in sites and HEAD in self.roles[self.like]:
            sites[HEAD] = sites[EMBED]

    def _pair(self, site: Site) -> Aligned | None:
        """The pair at a site of `like`, or None with a reason in `self.reasons`."""
        parts: dict[str, TensorView] = {}
        shapes: dict[str, Shape] = {}
        for role, sites in self.roles.items():
            part = sites.get(site)
            if part is not None:
                parts[role] = part
                shapes[role] = part.shape(self.shapes[role][part.name])
        if len(parts) < 2:
            return None
        strange = None if self._all_float else self._strange(parts)
        if strange is not None:
            self._apart(site, parts, f"{strange.dtype_name} values are not weights to compare or combine")
            return None
        if site.tower == "text" and site.component in VOCABULARY:
            return self._vocabulary_pair(site, parts, shapes)
        shape = shapes[self.like]
        for role, other in shapes.items():
            if other == shape:
                continue
            if other == shape[::-1] and site.component in ROUTERS:
                parts[role] = TensorView(parts[role].name, parts[role].slices, not parts[role].transposed)
            else:
                self._differing(site, parts, shapes, role)
                return None
        return Aligned(site, shape, parts)

    def _strange(self, parts: Mapping[str, TensorView]) -> LazyTensor | None:
        """The first of these tensors that holds no plain floating-point weights."""
        tensors = (self.checkpoints[role][part.name] for role, part in parts.items())
        return next((tensor for tensor in tensors if not tensor.is_float), None)

    def _apart(self, site: Site, parts: Mapping[str, TensorView], reason: str) -> None:
        self.reasons.update(((role, site), reason) for role in parts)

    def _differing(self, site: Site, parts: Mapping[str, TensorView], shapes: Mapping[str, Shape], role: str) -> None:
        """Two shapes at one site: no pair outside of the text stack, and no relatives within it."""
        fault = f"{parts[role].name} is {_by(shapes[role])} in {role}, {_by(shapes[self.like])} in {self.like}"
        if site.tower == "text":
            raise AlignmentError(
                f"{fault} ({site.key}): {role} ({self.checkpoints[role].ref}) is not a relative of "
                f"{self.like} ({self.checkpoints[self.like].ref}). Check that they are the right checkpoints."
            )
        self._apart(site, parts, f"shapes differ: {fault}")

    def _vocabulary_pair(self, site: Site, held: Mapping[str, TensorView], shapes: Mapping[str, Shape]) -> Aligned:
        """The rows that every role has. Adapting a model appends rows (image tokens, padding), so the first
        ones are the tokens of the base."""
        widths = {shape[1:] for shape in shapes.values()}
        if len(widths) > 1:
            sizes = ", ".join(f"{_by(shape)} in {role}" for role, shape in shapes.items())
            raise AlignmentError(f"{site.key} differs in width: {sizes}. Check that these are the right checkpoints.")
        common = min(shape[0] for shape in shapes.values())
        shape = (common, *widths.pop())
        parts = {}
        for role, part in held.items():
            extra = shapes[role][0] - common
            start = part.slices[0].start if part.slices else 0
            cut = (slice(start, start + common), *(slice(0, extent) for extent in shape[1:]))
            parts[role] = TensorView(part.name, cut) if extra else part
            if extra:
                self.notes.append(
                    f"{site.key}: {role} has {shapes[role][0]} rows, of which the first {common} are shared and "
                    f"{extra} are its own."
                )
        return Aligned(site, shape, parts)

    def _reason(self, role: str, site: Site) -> str:
        """Why a tensor of `role` found no partner: what was looked for, and where."""
        others = [other for other in self.roles if other != role] if role == self.like else [self.like]
        tensor = self.checkpoints[role][self.roles[role][site].name]
        if not tensor.is_float:
            return f"{tensor.dtype_name} values are not weights to compare or combine"
        with_tower = [other for other in others if any(found.tower == site.tower for found in self.roles[other])]
        if not with_tower:
            place = {"projector": "projector", "other": "part of this kind"}.get(site.tower, f"{site.tower} tower")
            return f"{' and '.join(others)} {'has' if len(others) == 1 else 'have'} no {place}"
        verb = "has" if len(with_tower) == 1 else "have"
        if site == HEAD and role != self.like:
            return f"{self.like} has no head of its own: it ties it to the embedding, or leaves it out"
        if site.own_layer is not None:
            return f"{' and '.join(with_tower)} {verb} no such layer: adaptation inserted it as number {site.own_layer}"
        return f"{' and '.join(with_tower)} {verb} no {site.key}"


def _check_stacks(checkpoints: Mapping[str, Checkpoint], roles: Mapping[str, SiteViews], like: str) -> None:
    """Text stacks must agree in depth and width before any tensor is matched."""
    facts = {role: _depth_and_width(checkpoints[role], parts) for role, parts in roles.items()}
    for role, (depth, width) in facts.items():
        if (depth, width) != facts[like]:
            raise AlignmentError(
                f"{like} and {role} share no text stack: {like} ({checkpoints[like].ref}) has {facts[like][0]} layers "
                f"of width {facts[like][1]}, {role} ({checkpoints[role].ref}) has {depth} of width {width}. "
                "Give checkpoints that descend from one language model."
            )


def _depth_and_width(checkpoint: Checkpoint, parts: SiteViews) -> tuple[int, int]:
    depth = 1 + max(site.layer for site in parts if site.tower == "text" and site.layer is not None)
    for site in (Site("text", None, "norm.final"), EMBED, HEAD):
        if site in parts:
            return depth, checkpoint[parts[site].name].shape[-1]
    return depth, 0


def _same_bytes(first: LazyTensor, second: LazyTensor) -> bool:
    if (first.shape, first.safetensors_dtype) != (second.shape, second.safetensors_dtype):
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
