"""The pairs of several checkpoints without any measurement, and the tensors without partner."""

from collections.abc import Mapping

from vlsurgery.surgery.alignment.alignment import align
from vlsurgery.surgery.alignment.mismatches import fit_of
from vlsurgery.surgery.checkpoint import Checkpoint
from vlsurgery.surgery.results import ComparisonResult, Match, Shared


def compare(checkpoints: Mapping[str, Checkpoint], like: str | None = None) -> ComparisonResult:
    """The alignment of checkpoints as a result: pairs, counts, and unmatched tensors with reasons.

    checkpoints: any names -> two checkpoints or more. like: the one whose tensors the others are matched with; the last
    one where none is named. A sample of weights is read where names and shapes do not tell partners.

    Raises AlignmentError as `align` does.
    """
    chosen = list(checkpoints)[-1] if like is None else like
    alignment = align(checkpoints, chosen)
    fit = fit_of(alignment)
    paired = {role: {pair.parts[role].name for pair in alignment.pairs if role in pair.parts} for role in checkpoints}
    return ComparisonResult(
        checkpoints={role: checkpoint.ref_model for role, checkpoint in checkpoints.items()},
        like=chosen,
        roles={
            role: Shared(
                tensors=len(checkpoint),
                paired=len(paired[role]),
                parameters=sum(tensor.numel for tensor in checkpoint.values()),
                paired_parameters=sum(checkpoint[name].numel for name in paired[role]),
            )
            for role, checkpoint in checkpoints.items()
        },
        pairs=[
            Match(
                tower=pair.site.tower,
                layer=pair.site.layer,
                component=pair.site.component,
                added=pair.site.own_layer is not None,
                own_layer=pair.site.own_layer,
                names={role: part.label() for role, part in pair.parts.items()},
                shape=list(pair.shape),
            )
            for pair in alignment.pairs
        ],
        unmatched=list(alignment.unmatched),
        notes=[*alignment.notes, *fit.notes],
        mismatches=fit.mismatches,
    )
