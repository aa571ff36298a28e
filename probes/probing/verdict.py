"""What a probe found, in a few sentences."""

from collections.abc import Sequence

from vlsurgery.probes.attribution import Attribution
from vlsurgery.probes.probing.state import ProbeState
from vlsurgery.probes.results import Target


def verdict(state: ProbeState) -> str:
    """The findings in a few sentences."""
    said = []
    if state.selected is None:
        said.append("No direction could be made.")
    elif state.selected.auroc <= state.selected.null:
        said.append(
            f"The base does not tell harmful from harmless: its best AUROC of {state.selected.auroc:.2f} is within "
            f"what chance gives ({state.selected.null:.2f})."
        )
    else:
        said.append(
            f"The base tells harmful from harmless (AUROC {state.selected.auroc:.2f} at layer {state.selected.layer})."
        )
    if state.attribution is not None:
        said.append(_where_lost(state.attribution))
    else:
        said.append(_why_nothing_lost(state.targets))
    return " ".join(said)


def _where_lost(found: Attribution) -> str:
    """The blocks that pass the null, with their share of the loss; that there are none is a finding too."""
    null, measured = found.null, found.completeness.measured
    whole = f"Between adapted and graft lie {measured:.1f} nats of refusal log-odds."
    if null.reason is not None:
        return f"{whole} No block is named: {null.reason}."
    if not null.found:
        return f"{whole} No block brings back lost refusals more than it changes other answers: nothing was located."
    shares = {row.block: row.share or 0.0 for row in found.gains if row.is_whole and row.method == "path"}
    named = sorted(null.found, key=lambda block: -shares[block])[:4]
    count = f"{len(null.found)} blocks stand" if len(null.found) > 1 else "One block stands"
    most = " the most" if len(null.found) > len(named) else ""
    share = sum(shares[block] for block in named)
    verb = "hold" if len(named) > 1 else "holds"
    return f"{whole} {count} out from permuted prompts: {', '.join(named)} {verb}{most}, {share:.0%} of it."


def _why_nothing_lost(targets: Sequence[Target]) -> str:
    """Why there is nothing to attribute: a base that refuses nothing is no proof that nothing was lost."""
    verdicts = [each.verdict for each in targets if each.role == "base"]
    refused = verdicts.count("refused")
    if not refused:
        return (
            f"The base refuses 0 of {len(verdicts)} harmful prompts: nothing could be lost, so nothing was looked for."
        )
    return f"Of the {refused} harmful prompts that the base refuses, too few were lost to attribute them."
