"""Safety layers: angles of states that are known, and a slow count of the same pairs."""

import numpy as np
import pytest
import torch

from vlsurgery.probes.safety_layers import angle_gaps


def test_states_at_known_angles():
    """Harmless ones point along x; harmful ones along x behind the first layer and along y behind the second."""
    along, across = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    harmless = torch.stack([along, along]).expand(3, 2, 2)
    harmful = torch.stack([along, across]).expand(4, 2, 2)
    found = angle_gaps(harmless, harmful, list("abc"), list("defg"))
    assert found.gap.tolist() == pytest.approx([0.0, 90.0], abs=1e-4)
    assert found.same.tolist() == pytest.approx([1.0, 1.0])
    assert found.across.tolist() == pytest.approx([1.0, 0.0], abs=1e-6)
    assert found.low[1] == pytest.approx(90.0)
    assert found.high[1] == pytest.approx(90.0)


def test_pairs_of_one_request_are_left_out_as_a_loop_leaves_them_out():
    made = torch.Generator().manual_seed(0)
    harmless, harmful = (torch.randn(count, 2, 5, generator=made) for count in (4, 5))
    ours, theirs = ["a", "b", "c", "c"], ["a", "b", "c", "x", "y"]
    found = angle_gaps(harmless, harmful, ours, theirs)

    def angle(one: torch.Tensor, other: torch.Tensor) -> float:
        return float(np.degrees(np.arccos(float(torch.nn.functional.cosine_similarity(one, other, dim=0)))))

    for layer in (0, 1):
        same = [angle(harmless[i, layer], harmless[j, layer]) for i in range(4) for j in range(4) if ours[i] != ours[j]]
        across = [
            angle(harmless[i, layer], harmful[j, layer]) for i in range(4) for j in range(5) if ours[i] != theirs[j]
        ]
        assert found.gap[layer] == pytest.approx(np.mean(across) - np.mean(same), abs=1e-3)
        assert found.low[layer] <= found.gap[layer] <= found.high[layer]


def test_lengths_do_not_matter_and_more_requests_narrow_the_interval():
    made = torch.Generator().manual_seed(1)
    harmless, harmful = torch.randn(40, 1, 8, generator=made), torch.randn(40, 1, 8, generator=made) + 1.0
    names = [str(at) for at in range(80)]
    whole = angle_gaps(harmless, harmful, names[:40], names[40:])
    scaled = angle_gaps(3 * harmless, harmful * 0.1, names[:40], names[40:])
    assert scaled.gap == pytest.approx(whole.gap, abs=1e-6)
    few = angle_gaps(harmless[:8], harmful[:8], names[:8], names[40:48])
    assert whole.high[0] - whole.low[0] < few.high[0] - few.low[0]
