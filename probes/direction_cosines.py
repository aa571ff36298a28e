"""Cosines between the directions of all roles and modalities, behind each layer and across layers."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from vlsurgery.probes.contrasts import Directions
from vlsurgery.probes.layer_readings import kept_layers, short
from vlsurgery.probes.layer_results import DirectionCosines
from vlsurgery.probes.results import CosineRow


def direction_cosines(position: str, directions: Mapping[str, Tensor]) -> DirectionCosines:
    """Cosines of directions [layers, hidden] of one position; the first is the one that all are compared with across
    layers."""
    layers = kept_layers(len(next(iter(directions.values()))))
    units = torch.stack([normalize(each.double(), dim=-1)[layers] for each in directions.values()])
    between = torch.einsum("klh,mlh->lkm", units, units)
    across = torch.einsum("ih,kjh->kij", units[0], units)
    return DirectionCosines(
        position=position,
        keys=list(directions),
        layers=layers,
        between=short(between),
        across=dict(zip(directions, short(across), strict=True)),
    )


def all_cosines(found: Mapping[tuple[str, str], Directions]) -> list[DirectionCosines]:
    """At the last instruction token and the last token, the directions of all roles and modalities of the shape that
    the base's have in text."""
    if ("base", "text") not in found:
        return []
    reference = found["base", "text"]
    rest = {key: each for key, each in found.items() if key != ("base", "text")}
    tables = []
    for at in sorted({0, len(reference.positions) - 1}):
        position = reference.positions[at]
        same = {"base/text": reference.values[at]}
        for (role, modality), each in rest.items():
            if position in each.positions:
                values = each.values[each.positions.index(position)]
                if values.shape == reference.values[at].shape:
                    same[f"{role}/{modality}"] = values
        tables.append(direction_cosines(position, same))
    return tables


def cosines_with_base(directions: Mapping[tuple[str, str], Directions]) -> list[CosineRow]:
    """Each direction's cosine with the base's text direction, where positions and shapes agree."""
    if ("base", "text") not in directions:
        return []
    reference = directions["base", "text"]
    rows = []
    for (role, modality), found in directions.items():
        for at, position in enumerate(found.positions):
            if position not in reference.positions:
                continue
            other = reference.values[reference.positions.index(position)]
            if other.shape != found.values[at].shape:
                continue
            cosines = cosine_similarity(found.values[at], other, dim=-1)
            rows += [
                CosineRow(
                    role=role,
                    modality=modality,
                    reference="base/text",
                    position=position,
                    layer=layer,
                    cosine=float(cosines[layer]),
                    split_half=float(found.split_half[at, layer]),
                )
                for layer in range(len(cosines))
            ]
    return rows
