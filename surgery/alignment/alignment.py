"""The tensors that several checkpoints share, as pairs by site, and every tensor without partner with its reason."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from vlsurgery.surgery.alignment.content_matching import ContentMatcher
from vlsurgery.surgery.alignment.similarity import read_view
from vlsurgery.surgery.architecture.decoder_stack import DecoderConfig, Shape, format_shape
from vlsurgery.surgery.architecture.identify import identify
from vlsurgery.surgery.architecture.layouts import EMBED, SiteViews, TensorView, split_fused
from vlsurgery.surgery.architecture.naming import split_leaf
from vlsurgery.surgery.architecture.site import Site
from vlsurgery.surgery.checkpoint import FLOATS, Checkpoint, LazyTensor
from vlsurgery.surgery.checkpoint.anatomy import headless_note, ties_head
from vlsurgery.surgery.checkpoint.completeness import check_plain, check_weights, wrapper_note
from vlsurgery.surgery.errors import AlignmentError
from vlsurgery.surgery.results import UnmatchedTensor
from vlsurgery.surgery.runtime.gc_pause import gc_paused

if TYPE_CHECKING:
    import numpy as np
    import torch

# Sites whose matrix some layouts store transposed.
ROUTERS: Final = ("mlp.router", "vision_router")

HEAD: Final = Site("text", None, "head")

# Sites with a row per token, the only ones at which one model may have more rows than another.
VOCABULARY: Final = ("embed", "embed.new", "head", "head.bias")

# Word in the names of other tables that have a row per token.
PER_TOKEN: Final = "tokens"
# Key of configs that give such a table a vocabulary of its own size.
PER_LAYER_ROWS: Final = "vocab_size_per_layer_input"


class Aligned(NamedTuple):
    """One site that `like` and at least one other role share. shape: of the shared part, the same in every role."""

    site: Site
    shape: Shape
    parts: Mapping[str, TensorView]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Alignment:
    """The pairs of tensors that checkpoints share, and the tensors without partner.

    like: the role whose tensors the others are matched with. pairs: sorted by site. unmatched: every tensor
    of every role that is in no pair. stale_heads: role -> a head in the file of a model that ties its head to
    the embedding, and a copy of that. notes: remarks on files, names, vocabularies that grew and stale heads.
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
        return read_view(self.tensor(aligned, role), aligned.parts[role], start, stop)

    def array(
        self, aligned: Aligned, role: str, start: int, stop: int, out: "np.ndarray | None" = None
    ) -> "np.ndarray":
        """Entries as `read` gives them, in numpy: bfloat16 by its bits, as uint16. out: a vector of that dtype and
        length, which is filled where the part is contiguous."""
        part, tensor = aligned.parts[role], self.tensor(aligned, role)
        first, size = part.span(tensor.shape)
        if part.is_contiguous(tensor.shape):
            return tensor.array(first + start, first + stop, out)
        return part.view(tensor.array(first, first + size), tensor.shape).reshape(-1)[start:stop]

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
        """The name of one role's tensor in errors."""
        return f"{role} ({self.checkpoints[role].ref}): tensor {aligned.parts[role].name}"

    def in_file_order(self) -> list[Aligned]:
        """The pairs in the order in which `like` stores them, so that its files are read forward."""
        return sorted(self.pairs, key=lambda pair: _file_offset(self.tensor(pair, self.like)))


@gc_paused()
def align(checkpoints: Mapping[str, Checkpoint], like: str = "adapted") -> Alignment:
    """Pair every tensor of `like` with its partners in the other roles, by site and never by raw name.

    checkpoints: role -> checkpoint; at least `like` and one other. Text sites are expected in every role;
    vision tower and projector pair where both have one. Where vocabularies differ in size, the pair is of the rows that
    all share.

    Raises AlignmentError when text stacks differ in depth or width, when a tensor of the text stack differs
    in shape, or when weights are quantised; CheckpointError when weights are missing from a file.
    """
    if like not in checkpoints or len(checkpoints) < 2:
        raise AlignmentError(f"an alignment needs {like!r} and another role; it was given {', '.join(checkpoints)}.")
    roles: dict[str, SiteViews] = {}
    shapes = {role: checkpoint.shapes for role, checkpoint in checkpoints.items()}
    facts = {
        role: (shapes[role], DecoderConfig.of(checkpoint.config), checkpoint.text_stack)
        for role, checkpoint in checkpoints.items()
    }
    for role, checkpoint in checkpoints.items():
        check_weights(role, checkpoint)
        # Roles with the same names, shapes and decoder have the same sites.
        twin = next((other for other in roles if facts[other] == facts[role]), role)
        try:
            sites = identify(shapes[role], checkpoint.config, checkpoint.text_stack) if twin == role else {}
        except AlignmentError as error:
            raise AlignmentError(f"{role} ({checkpoint.ref}): {error}.") from error
        check_plain(role, checkpoint, (name for name, site in sites.items() if site.tower == "text"))
        roles[role] = roles[twin] if twin != role else {site: TensorView(name) for name, site in sites.items()}
    _check_stacks(checkpoints, roles, like)
    return _Aligner(checkpoints, roles, shapes, like).alignment()


class _Aligner:
    """The state of one alignment. roles: role -> site -> view."""

    def __init__(
        self,
        checkpoints: Mapping[str, Checkpoint],
        roles: Mapping[str, SiteViews],
        shapes: Mapping[str, Mapping[str, Shape]],
        like: str,
    ) -> None:
        self.checkpoints = checkpoints
        self.shapes = shapes
        self.like = like
        self.notes = [
            f"{role}: {note}"
            for role, checkpoint in checkpoints.items()
            for note in (*checkpoint.notes, wrapper_note(checkpoint))
            if note
        ]
        self.stale: dict[str, str] = {}
        self.reasons: dict[tuple[str, Site], str] = {}
        self._all_float = all(
            FLOATS.issuperset(checkpoint.safetensors_dtypes.values()) for checkpoint in checkpoints.values()
        )
        self.roles = self._with_partners(self._with_tied_heads(roles))

    def alignment(self) -> Alignment:
        found = (self._pair(site) for site in sorted(self.roles[self.like], key=lambda site: site.order))
        pairs = tuple(pair for pair in found if pair is not None)
        return Alignment(self.checkpoints, self.like, pairs, self._unmatched(pairs), self.stale, tuple(self.notes))

    def _with_partners(self, roles: dict[str, SiteViews]) -> dict[str, SiteViews]:
        """The roles with fused weights split and each partner at the site of `like`, in every role whose names or
        shapes differ from those of `like`."""
        others = [role for role in roles if self.shapes[role] != self.shapes[self.like]]
        if others:
            roles = split_fused(roles, self.shapes)
        for role in others:
            matcher = ContentMatcher(self.checkpoints, self.shapes, self.like, role, roles)
            try:
                roles = matcher.match()
            except AlignmentError as error:
                raise AlignmentError(f"{role} ({self.checkpoints[role].ref}): {error}.") from error
            self.reasons.update(matcher.reasons)
        return roles

    def _unmatched(self, pairs: Iterable[Aligned]) -> tuple[UnmatchedTensor, ...]:
        """Every tensor of which no part is in a pair, once."""
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

    def _with_tied_heads(self, roles: Mapping[str, SiteViews]) -> dict[str, SiteViews]:
        """The roles with the embedding as the head of a model that ties them, and without the stale head in its file;
        in `like` itself a tied head is no site."""
        found: dict[str, SiteViews] = {}
        for role in sorted(roles, key=lambda role: role != self.like):
            sites, checkpoint = dict(roles[role]), self.checkpoints[role]
            found[role] = sites
            embed, head = (sites[site].name if site in sites else None for site in (EMBED, HEAD))
            if note := headless_note(checkpoint, embed, head):
                self.notes.append(f"{role}: {note}")
            if not ties_head(checkpoint, embed, head):
                if head is not None and checkpoint.config.get("tie_word_embeddings") is True:
                    self.notes.append(
                        f"{role}: the config ties the head to the embedding, but the file holds a head of its own, "
                        f"{head}, which transformers uses; it is kept. Set tie_word_embeddings to false in the config."
                    )
                continue
            if head is not None:
                del sites[HEAD]
                self.stale[role] = head
                self.notes.append(
                    f"{role}: {head} is stale, because the config ties the head to the embedding; it is left out."
                )
            if role != self.like and embed is not None and HEAD in found[self.like]:
                sites[HEAD] = sites[EMBED]
        return {role: found[role] for role in roles}

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
        odd = None if self._all_float else self._not_float(parts)
        if odd is not None:
            self._leave(site, parts, f"{odd.dtype_name} values are not weights to compare or combine")
            return None
        if (site.tower == "text" and site.component in VOCABULARY) or self._grew(site, shapes):
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

    def _grew(self, site: Site, shapes: Mapping[str, Shape]) -> bool:
        """Whether a tensor beside the embedding, of other rows in each role, has a row per token, as the embeddings
        that feed each layer have: its name tells, or it has the embedding's rows in every role, or those that each
        config gives such a table."""
        widths = {shape[1:] for shape in shapes.values()}
        if site.tower != "text" or site.layer is not None or len(set(shapes.values())) == 1 or len(widths) > 1:
            return False
        tables = {role: self.roles[role][EMBED] for role in shapes if EMBED in self.roles[role]}
        rows = {role: table.shape(self.shapes[role][table.name])[0] for role, table in tables.items()}
        stated = {role: self.checkpoints[role].config for role in shapes}
        own = {role: DecoderConfig.section(config).get(PER_LAYER_ROWS) for role, config in stated.items()}
        if own == {role: shape[0] for role, shape in shapes.items()}:
            return True
        words = split_leaf(site.component.removeprefix("raw:"))[0].replace(".", "_").split("_")
        return PER_TOKEN in words or rows == {role: shape[0] for role, shape in shapes.items()}

    def _not_float(self, parts: Mapping[str, TensorView]) -> LazyTensor | None:
        """The first of these tensors that holds no plain floating-point weights."""
        tensors = (self.checkpoints[role][part.name] for role, part in parts.items())
        return next((tensor for tensor in tensors if not tensor.is_float), None)

    def _leave(self, site: Site, parts: Mapping[str, TensorView], reason: str) -> None:
        self.reasons.update(((role, site), reason) for role in parts)

    def _differing(self, site: Site, parts: Mapping[str, TensorView], shapes: Mapping[str, Shape], role: str) -> None:
        """Leave a site of two shapes unpaired; in the text stack raise AlignmentError: the models are unrelated."""
        mine, theirs = (format_shape(shapes[name]) for name in (self.like, role))
        fault = f"{parts[role].name} is {theirs} in {role}, {mine} in {self.like}"
        if site.tower == "text":
            raise AlignmentError(
                f"{fault} ({site.key}): {role} ({self.checkpoints[role].ref}) is not a relative of "
                f"{self.like} ({self.checkpoints[self.like].ref}). Check that they are the right checkpoints."
            )
        self._leave(site, parts, f"shapes differ: {fault}")

    def _vocabulary_pair(self, site: Site, held: Mapping[str, TensorView], shapes: Mapping[str, Shape]) -> Aligned:
        """The pair of the rows that every role has: adaptation appends rows (image tokens, padding), so the first ones
        are the base's tokens."""
        widths = {shape[1:] for shape in shapes.values()}
        if len(widths) > 1:
            sizes = ", ".join(f"{format_shape(shape)} in {role}" for role, shape in shapes.items())
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
        """Why a tensor of `role` found no partner."""
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
    """Raise AlignmentError where text stacks differ in depth or width."""
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


def _file_offset(tensor: LazyTensor) -> tuple[str, int]:
    return str(tensor.shard), tensor.offset
