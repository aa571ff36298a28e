"""Merge methods: pure functions on tensors, and the table of them.

Adding a method is one file and one row. In the file, a function `(block, settings, facts) -> vector` that merges a
stretch of a tensor, numpy's vectors in and out, for instance the entry-wise median:

    def median(block, settings, facts):
        '''theta = median over the models of theta_i (paper, equation).'''
        return np.median(np.stack(list(block.models.values())), axis=0)

and here, in METHODS, what it is and what it obeys:

    "median": Method(median, "theta = median of theta_i", "paper", ("equal_inputs", "entries"), False, PART),

A method that must see the whole tensor first (a norm, a rank) has a second function, `prepare`. The laws are held by
tests/surgery/methods/test_methods.py, the bytes by the writer, the memory by the blocks: a method sees none of these.
"""

from dataclasses import replace
from typing import Final

from vlsurgery.surgery.methods.geometry import angle, centring, model_stock, slerp
from vlsurgery.surgery.methods.method import Chunk, Method, Parameter, Property, Settings, Stream
from vlsurgery.surgery.methods.safety import resta, safelora, safemerge, unsafe_part
from vlsurgery.surgery.methods.sparse import band, by_magnitude, by_sign, by_sum, drop, magprune, trim, without_outliers
from vlsurgery.surgery.methods.weighted import blend, linear, task_arithmetic

__all__ = ["METHODS", "Chunk", "Method", "Parameter", "Property", "Settings", "Stream"]

# A weight below 0 would subtract a model, which is how refusals are taken out of one: no method here takes it. How far
# beyond a model the weights and lambda above 1 may lead is the user's to judge, and `vlsurgery evaluate`'s to measure.
WEIGHT: Final = Parameter("how much of the model goes in", 1.0, low=0.0)
SHARE: Final = Parameter("how far toward the model", 0.0, low=0.0, high=1.0)
PART: Final = Parameter("whether the model takes part: 1 or 0", 1.0, low=0.0, high=1.0, whole=True)

STRENGTH: Final = Parameter("what the merged move is multiplied by", 1.0, low=0.0)
DENSITY: Final = Parameter("share of the delta's entries that are kept", 1.0, low=0.0, high=1.0, per_model=True)
GAMMA: Final = Parameter("share of the largest entries that are left out", 0.01, low=0.0, high=1.0, per_model=True)
EPSILON: Final = Parameter("how far the chance rises and falls around density", 0.15, low=0.0, high=0.5, per_model=True)
DIVIDED: Final = Parameter("divide by the sum of the weights", True)
TAU: Final = Parameter("cosine up to which a delta gives way", 0.5, low=-1.0, high=1.0)
SAFELY: Final = Parameter("how much of the safe model goes in", 0.5, low=0.0, high=1.0)
VECTOR: Final = Parameter("strength of the safety vector", 1.0, low=0.0)
UNDIVIDED: Final = Parameter("divide by the sum of the weights", False)
RESCALED: Final = Parameter("multiply what is kept by 1 over its chance to be", True)

_SUMMED: Final = {"lambda": STRENGTH, "normalize": UNDIVIDED}
_AVERAGED: Final = {"lambda": STRENGTH, "normalize": DIVIDED}
_TIES: Final = "Yadav et al. 2023, arXiv 2306.01708"
_DARE: Final = "Yu et al. 2024, arXiv 2311.03099"
_DELLA: Final = "Deep et al. 2024, arXiv 2406.11617"
_BREADCRUMBS: Final = "Davari and Belilovsky 2024, arXiv 2312.06795"

METHODS: Final[dict[str, Method]] = {
    "blend": Method(
        combine=blend,
        formula="theta = adapted + c_base (base - adapted) + c_safety (safety - adapted)",
        source="interpolation toward two models at once; one pair of coefficients per block is ours",
        properties=(
            "identity",
            "endpoint",
            "equal_inputs",
            "zero_delta",
            "linear",
            "scaling",
            "permutation",
            "entries",
        ),
        needs_base=True,
        coefficient=SHARE,
    ),
    "linear": Method(
        combine=linear,
        formula="theta = sum w_i theta_i / sum w_i",
        source="Wortsman et al. 2022, arXiv 2203.05482",
        properties=("endpoint", "equal_inputs", "scaling", "permutation", "entries", "between"),
        needs_base=False,
        coefficient=WEIGHT,
        parameters={"normalize": DIVIDED},
    ),
    "slerp": Method(
        combine=slerp,
        prepare=angle,
        formula="theta = (sin((1-t) a) base + sin(t a) theta_1) / sin a, a the angle between the two tensors",
        source="Shoemake 1985",
        properties=("identity", "endpoint", "equal_inputs", "zero_delta", "scaling", "entries"),
        needs_base=True,
        coefficient=SHARE,
        models=(1, 1),
    ),
    "task_arithmetic": Method(
        combine=task_arithmetic,
        formula="theta = base + lambda sum w_i (theta_i - base)",
        source="Ilharco et al. 2023, arXiv 2212.04089",
        properties=(
            "identity",
            "endpoint",
            "equal_inputs",
            "zero_delta",
            "linear",
            "scaling",
            "permutation",
            "entries",
        ),
        needs_base=True,
        coefficient=WEIGHT,
        parameters=_SUMMED,
    ),
    "ties": Method(
        combine=by_sign(trim),
        prepare=by_magnitude,
        formula="theta = base + lambda mean of the trimmed w_i (theta_i - base) that have the elected sign",
        source=_TIES,
        properties=("equal_inputs", "zero_delta", "scaling", "permutation", "entries"),
        needs_base=True,
        coefficient=WEIGHT,
        parameters={**_AVERAGED, "density": DENSITY},
    ),
    "dare_linear": Method(
        combine=by_sum(drop),
        formula="theta = base + lambda sum w_i m_i (theta_i - base) / density, m_i = 1 with probability density",
        source=_DARE,
        properties=("equal_inputs", "zero_delta", "linear", "scaling", "permutation"),
        needs_base=True,
        coefficient=WEIGHT,
        parameters={**_SUMMED, "density": DENSITY, "rescale": RESCALED},
    ),
    "dare_ties": Method(
        combine=by_sign(drop),
        formula="theta = base + lambda sum of the w_i m_i (theta_i - base) / density that have the elected sign",
        source=f"{_DARE}; {_TIES}",
        properties=("equal_inputs", "zero_delta", "scaling", "permutation"),
        needs_base=True,
        coefficient=WEIGHT,
        parameters={**_SUMMED, "density": DENSITY, "rescale": RESCALED},
    ),
    "della": Method(
        combine=by_sign(magprune),
        formula="theta = base + lambda mean of the w_i m_i (theta_i - base) / p_i of the elected sign, p_i by rank",
        source=f"{_DELLA}; {_TIES}",
        properties=("equal_inputs", "zero_delta", "scaling", "permutation"),
        needs_base=True,
        coefficient=WEIGHT,
        parameters={**_AVERAGED, "density": DENSITY, "epsilon": EPSILON, "rescale": RESCALED},
        whole_rows=True,
    ),
    "della_linear": Method(
        combine=by_sum(magprune),
        formula="theta = base + lambda sum w_i m_i (theta_i - base) / p_i, p_i by rank",
        source=_DELLA,
        properties=("equal_inputs", "zero_delta", "linear", "scaling", "permutation"),
        needs_base=True,
        coefficient=WEIGHT,
        parameters={**_SUMMED, "density": DENSITY, "epsilon": EPSILON, "rescale": RESCALED},
        whole_rows=True,
    ),
    "breadcrumbs": Method(
        combine=by_sum(band),
        prepare=without_outliers,
        formula="theta = base + lambda sum w_i (theta_i - base) without its largest and its smallest entries",
        source=_BREADCRUMBS,
        properties=("equal_inputs", "zero_delta", "linear", "scaling", "permutation", "entries"),
        needs_base=True,
        coefficient=WEIGHT,
        parameters={**_SUMMED, "density": DENSITY, "gamma": GAMMA},
    ),
    "breadcrumbs_ties": Method(
        combine=by_sign(band),
        prepare=without_outliers,
        formula="theta = base + lambda sum of the w_i (theta_i - base) of middling size that have the elected sign",
        source=f"{_BREADCRUMBS}; {_TIES}",
        properties=("equal_inputs", "zero_delta", "scaling", "permutation", "entries"),
        needs_base=True,
        coefficient=WEIGHT,
        parameters={**_SUMMED, "density": DENSITY, "gamma": GAMMA},
    ),
    "model_stock": Method(
        combine=model_stock,
        prepare=centring,
        formula="theta = base + t (mean of theta_i - base), t = N c / (1 + (N-1) c), c the mean cosine of the deltas",
        source="Jang et al. 2024, arXiv 2403.19522",
        properties=("equal_inputs", "zero_delta", "permutation", "entries"),
        needs_base=True,
        coefficient=PART,
        models=(2, None),
    ),
    "safelora": Method(
        combine=safelora,
        prepare=unsafe_part,
        formula="theta = base + C (adapted - base) where cos(C delta, delta) <= tau, else adapted; "
        "C = V V^T / norm(V), V = base - unaligned",
        source="Hsu et al. 2024, arXiv 2405.16833",
        properties=("equal_inputs", "zero_delta"),
        needs_base=True,
        coefficient=PART,
        parameters={"tau": TAU},
        models=(2, 2),
        named_inputs=("adapted", "unaligned"),
        whole_rows=True,
    ),
    "safemerge": Method(
        combine=safemerge,
        prepare=unsafe_part,
        formula="theta = base + (1 - share) (adapted - base) + share (safe - base) where safelora's test is met, else "
        "adapted",
        source="Djuhera et al. 2025, arXiv 2503.17239",
        properties=("equal_inputs", "zero_delta", "scaling"),
        needs_base=True,
        coefficient=PART,
        parameters={"tau": TAU, "share": SAFELY},
        models=(3, 3),
        named_inputs=("adapted", "safe", "unaligned"),
        whole_rows=True,
    ),
    "resta": Method(
        combine=resta,
        formula="theta = base + (adapted - base) + gamma (base - unaligned)",
        source="Bhardwaj et al. 2024, arXiv 2402.11746",
        properties=("equal_inputs", "zero_delta", "scaling"),
        needs_base=True,
        coefficient=PART,
        parameters={
            "gamma": VECTOR,
            "density": replace(DENSITY, per_model=False),
            "rescale": RESCALED,
        },
        models=(2, 2),
        named_inputs=("adapted", "unaligned"),
    ),
}
