"""What lies inside of a block: its sites and heads, or experts, with their gains; and labels of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vlsurgery.figures.blocks import split
from vlsurgery.probes.results import BlockGain

# Components in the order in which a layer reads them; what is not here follows by name.
COMPONENTS = (
    "norm.attn", "attn.q", "attn.k", "attn.v", "attn.qkv", "attn.q_norm", "attn.k_norm", "attn.o", "norm.attn_post",
    "norm.mlp", "mlp.router", "mlp.gate", "mlp.up", "mlp.gate_up", "mlp.down", "experts", "norm.mlp_post",
)  # fmt: skip


@dataclass(frozen=True)
class PartGain:
    """The gain of a site or of one head of it, in nats, with its 95% interval over requests. head: None for a site.
    site: None for a head with all that is its own."""

    site: str | None
    head: int | None
    gain: float
    low: float | None
    high: float | None
    share: float | None


@dataclass(frozen=True)
class Inside:
    """What a block is made of. sites: in the order of `COMPONENTS`. heads: of attention or experts, by number; a whole
    head's first, then those of single sites."""

    block: str
    sites: tuple[PartGain, ...]
    heads: tuple[PartGain, ...]

    @property
    def noun(self) -> str:
        """What its heads are called."""
        return "expert" if split(self.block)[1] == "MLP" else "head"


def inside(rows: Iterable[BlockGain]) -> dict[str, Inside]:
    """Block -> its parts, of every block of which a probe tells any."""
    found: dict[str, list[PartGain]] = {}
    for row in rows:
        if not row.is_whole and row.method == "path":
            part = PartGain(row.site, row.head, row.gain, row.low, row.high, row.share)
            found.setdefault(row.block, []).append(part)
    return {
        block: Inside(
            block,
            tuple(sorted((p for p in parts if p.head is None), key=lambda p: component_order(p.site or ""))),
            tuple(sorted((p for p in parts if p.head is not None), key=_head_order)),
        )
        for block, parts in found.items()
    }


def component_order(component: str) -> tuple[int, str]:
    """Sort key of components: as a layer reads them, then unknown ones by name."""
    return (COMPONENTS.index(component), "") if component in COMPONENTS else (len(COMPONENTS), component)


def in_order(components: Iterable[str]) -> list[str]:
    """Components once each, in that order."""
    return sorted(set(components), key=component_order)


def _head_order(part: PartGain) -> tuple[bool, tuple[int, str], int]:
    return part.site is not None, component_order(part.site or ""), part.head or 0


def short(value: float) -> float:
    """A number for a page, in the digits that a reader can use."""
    return float(f"{value:.5g}")


def menu(
    buttons: Sequence[tuple[str, Mapping[str, object], Mapping[str, object]]],
    traces: Sequence[int],
    y: float,
    name: str,
) -> dict[str, object]:
    """A drop-down above a figure's panels. buttons: label, what it changes of traces, what of the layout. traces: those
    that it changes. y: its place, in shares of the panels' height. name: what it chooses, for screen readers."""
    return {
        "type": "dropdown",
        "name": name,
        "buttons": [
            {"label": label, "method": "update", "args": [changed, layout, list(traces)]}
            for label, changed, layout in buttons
        ],
        "x": 1,
        "xanchor": "right",
        "y": y,
        "yanchor": "bottom",
        "pad": {"b": 4},
        "font": {"size": 12},
    }
