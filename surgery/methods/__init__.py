"""Merge methods: pure functions of tensors, and their registry.

Adding a method is one file and one row. In the file, a function `(chunk, settings, state) -> vector` that merges a
range of entries of a tensor, with numpy's vectors in and out, for instance the entry-wise median:

    def median(chunk, settings, state):
        '''theta = median over the models of theta_i (paper, equation).'''
        return np.median(np.stack(list(chunk.models.values())), axis=0)

and here, in METHODS, what it is and what it obeys:

    "median": Method(median, "theta = median of theta_i", "paper", ("equal_inputs", "entries"), False, PART),

A method that needs the whole tensor first (a norm, a rank) has a second function, `prepare`. Recipes, model cards and
the command line take a method's parameters from its row. tests/surgery/methods/test_methods.py holds it to its laws.
"""

from dataclasses import replace
from typing import Final

from vlsurgery.surgery.methods import geometry, safety, sparse, weighted
from vlsurgery.surgery.methods.method import COEFFICIENT, Chunk, Method, Parameter, Property, Settings, Stream

__all__ = ["COEFFICIENT", "METHODS", "PART", "Chunk", "Method", "Parameter", "Property", "Settings", "Stream"]

TOWARD: Final = Parameter("how far toward the model", 0.0, low=0.0, high=1.0)
BEYOND: Final = replace(TOWARD, high=1.5)  # above 1, beyond the model: `merge --auto` gives none but by --extrapolate
PART: Final = Parameter("whether the model takes part: 1 or 0", 1.0, low=0.0, high=1.0, whole=True)

LAMBDA: Final = Parameter("what the merged delta is multiplied by", 1.0, low=0.0)
NORMALIZE: Final = Parameter("divide by the sum of the coefficients", True, negative="sum")
DENSITY: Final = Parameter("share of the delta's entries that are kept", 1.0, low=0.0, high=1.0, per_model=True)
RESCALE: Final = Parameter("divide what is kept by its probability", True)
EPSILON: Final = Parameter("how far the keep probability varies around density", 0.15, 0.0, 0.5, per_model=True)
OUTLIERS: Final = Parameter("share of the largest entries that are left out", 0.01, low=0.0, high=1.0, per_model=True)
TAU: Final = Parameter("cosine up to which a delta gives way", 0.5, low=-1.0, high=1.0)
SAFE_SHARE: Final = Parameter("how much of the safe model goes in", 0.5, low=0.0, high=1.0)
SAFETY_VECTOR: Final = Parameter("what the safety vector is multiplied by", 1.0, low=0.0)

_SUMMED: Final = {"lambda": LAMBDA, "normalize": replace(NORMALIZE, default=False)}
_AVERAGED: Final = {"lambda": LAMBDA, "normalize": NORMALIZE}
_DARE: Final = {**_SUMMED, "density": DENSITY, "rescale": RESCALE}
_DELLA: Final = {"density": DENSITY, "epsilon": EPSILON, "rescale": RESCALE}
_BREADCRUMBS: Final = {**_SUMMED, "density": DENSITY, "gamma": OUTLIERS}

_SPARSE: Final[tuple[Property, ...]] = ("equal_inputs", "zero_delta", "scaling", "permutation")
_DENSE: Final[tuple[Property, ...]] = ("identity", "endpoint", *_SPARSE, "linear", "entries")

_TIES_PAPER: Final = "Yadav et al. 2023, arXiv 2306.01708"
_DARE_PAPER: Final = "Yu et al. 2024, arXiv 2311.03099"
_DELLA_PAPER: Final = "Deep et al. 2024, arXiv 2406.11617"
_BREADCRUMBS_PAPER: Final = "Davari and Belilovsky 2024, arXiv 2312.06795"

METHODS: Final[dict[str, Method]] = {
    "blend": Method(
        combine=weighted.task_arithmetic,
        formula="theta = adapted + c_base (base - adapted) + c_safety (safety - adapted)",
        source="interpolation toward two models at once; one pair of coefficients per block is ours",
        properties=_DENSE,
        coefficient=BEYOND,
    ),
    "linear": Method(
        combine=weighted.linear,
        formula="theta = sum w_i theta_i / sum w_i",
        source="Wortsman et al. 2022, arXiv 2203.05482",
        properties=("endpoint", "equal_inputs", "scaling", "permutation", "entries", "between"),
        needs_base=False,
        parameters={"normalize": NORMALIZE},
    ),
    "slerp": Method(
        combine=geometry.slerp,
        prepare=geometry.angle,
        formula="theta = (sin((1-t) a) base + sin(t a) theta_1) / sin a, a the angle between the two tensors",
        source="Shoemake 1985",
        properties=("identity", "endpoint", "equal_inputs", "zero_delta", "scaling", "entries"),
        coefficient=TOWARD,
        models=(1, 1),
    ),
    "task_arithmetic": Method(
        combine=weighted.task_arithmetic,
        formula="theta = base + lambda sum w_i (theta_i - base)",
        source="Ilharco et al. 2023, arXiv 2212.04089",
        properties=_DENSE,
        parameters=_SUMMED,
    ),
    "ties": Method(
        combine=sparse.elect_sign(sparse.trim),
        prepare=sparse.trim_thresholds,
        formula="theta = base + lambda mean of the trimmed w_i (theta_i - base) that have the elected sign",
        source=_TIES_PAPER,
        properties=(*_SPARSE, "entries"),
        parameters={**_AVERAGED, "density": DENSITY},
    ),
    "dare_linear": Method(
        combine=sparse.sum_deltas(sparse.random_prune),
        formula="theta = base + lambda sum w_i m_i (theta_i - base) / density, m_i = 1 with probability density",
        source=_DARE_PAPER,
        properties=(*_SPARSE, "linear"),
        parameters=_DARE,
    ),
    "dare_ties": Method(
        combine=sparse.elect_sign(sparse.random_prune),
        formula="theta = base + lambda sum of the w_i m_i (theta_i - base) / density that have the elected sign",
        source=f"{_DARE_PAPER}; {_TIES_PAPER}",
        properties=_SPARSE,
        parameters=_DARE,
    ),
    "della": Method(
        combine=sparse.elect_sign(sparse.magprune),
        formula="theta = base + lambda mean of the w_i m_i (theta_i - base) / p_i of the elected sign, p_i by rank",
        source=f"{_DELLA_PAPER}; {_TIES_PAPER}",
        properties=_SPARSE,
        parameters={**_AVERAGED, **_DELLA},
        whole_rows=True,
    ),
    "della_linear": Method(
        combine=sparse.sum_deltas(sparse.magprune),
        formula="theta = base + lambda sum w_i m_i (theta_i - base) / p_i, p_i by rank",
        source=_DELLA_PAPER,
        properties=(*_SPARSE, "linear"),
        parameters={**_SUMMED, **_DELLA},
        whole_rows=True,
    ),
    "breadcrumbs": Method(
        combine=sparse.sum_deltas(sparse.magnitude_band),
        prepare=sparse.band_thresholds,
        formula="theta = base + lambda sum w_i (theta_i - base) without its largest and its smallest entries",
        source=_BREADCRUMBS_PAPER,
        properties=(*_SPARSE, "linear", "entries"),
        parameters=_BREADCRUMBS,
    ),
    "breadcrumbs_ties": Method(
        combine=sparse.elect_sign(sparse.magnitude_band),
        prepare=sparse.band_thresholds,
        formula="theta = base + lambda sum of the w_i (theta_i - base) of middling size that have the elected sign",
        source=f"{_BREADCRUMBS_PAPER}; {_TIES_PAPER}",
        properties=(*_SPARSE, "entries"),
        parameters=_BREADCRUMBS,
    ),
    "model_stock": Method(
        combine=geometry.model_stock,
        prepare=geometry.interpolation_ratio,
        formula="theta = base + t (mean of theta_i - base), t = N c / (1 + (N-1) c), c the mean cosine of the deltas",
        source="Jang et al. 2024, arXiv 2403.19522",
        properties=("equal_inputs", "zero_delta", "permutation", "entries"),
        coefficient=PART,
        models=(2, None),
    ),
    "safelora": Method(
        combine=safety.safelora,
        prepare=safety.unsafe_projection,
        formula="theta = base + C (adapted - base) where cos(C delta, delta) <= tau, else adapted; "
        "C = V V^T / norm(V), V = base - unaligned",
        source="Hsu et al. 2024, arXiv 2405.16833",
        properties=("equal_inputs", "zero_delta"),
        coefficient=PART,
        parameters={"tau": TAU},
        models=(2, 2),
        named_inputs=("adapted", "unaligned"),
        whole_rows=True,
    ),
    "safemerge": Method(
        combine=safety.safemerge,
        prepare=safety.unsafe_projection,
        formula="theta = base + (1 - share) (adapted - base) + share (safe - base) where safelora's test is met, else "
        "adapted",
        source="Djuhera et al. 2025, arXiv 2503.17239",
        properties=("equal_inputs", "zero_delta", "scaling"),
        coefficient=PART,
        parameters={"tau": TAU, "share": SAFE_SHARE},
        models=(3, 3),
        named_inputs=("adapted", "safe", "unaligned"),
        whole_rows=True,
    ),
    "resta": Method(
        combine=safety.resta,
        formula="theta = base + (adapted - base) + gamma (base - unaligned)",
        source="Bhardwaj et al. 2024, arXiv 2402.11746",
        properties=("equal_inputs", "zero_delta", "scaling"),
        coefficient=PART,
        parameters={"gamma": SAFETY_VECTOR, "density": replace(DENSITY, per_model=False), "rescale": RESCALE},
        models=(2, 2),
        named_inputs=("adapted", "unaligned"),
    ),
}
