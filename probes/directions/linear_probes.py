"""Linear probes by scikit-learn: the bound of what a line can read of states."""

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

# Of the ridge the one with the least leave-one-out error is taken; the logistic probe's are inverse penalties.
PENALTIES: Final = tuple(10.0**power for power in range(-2, 5))
FOLDS: Final = 5  # of which the logistic probe's penalty is chosen by the likelihood of the one left out


def ridge_weights(harmful: Tensor, harmless: Tensor, k: int = 1) -> Tensor:  # noqa: ARG001
    """[1, d] weights of a ridge regression on the class, +1 for harmful and -1 for harmless."""
    from sklearn.linear_model import RidgeCV

    return _weights(RidgeCV(PENALTIES), harmful, harmless)


def logistic_weights(harmful: Tensor, harmless: Tensor, k: int = 1) -> Tensor:  # noqa: ARG001
    """[1, d] weights of a logistic regression on the class; with one row of a class its penalty is scikit-learn's."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    probe, folds = LogisticRegression(max_iter=5000), min(FOLDS, len(harmful), len(harmless))
    if folds < 2:
        return _weights(probe, harmful, harmless)
    return _weights(GridSearchCV(probe, {"C": PENALTIES}, scoring="neg_log_loss", cv=folds), harmful, harmless)


def _weights(probe: Any, harmful: Tensor, harmless: Tensor) -> Tensor:
    """A probe's weights in the states' own units; it is fitted to states with every dimension standardised."""
    states = torch.cat([harmful, harmless])
    spread = states.std(0, correction=0)
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))  # a dimension that never varies gets no weight
    labels = np.array([1.0] * len(harmful) + [-1.0] * len(harmless))
    probe.fit(((states - states.mean(0)) / spread).cpu().numpy(), labels)
    weights = getattr(probe, "best_estimator_", probe).coef_
    return torch.from_numpy(np.atleast_2d(weights)).to(states) / spread
