"""TPE (optuna) or CMA-ES (cma) behind a pipe: run in an environment that has them, it sees points and values alone.

A line of JSON a message. First it reads {"kind": "tpe" or "cma", "start": [d], "seed": n}; then, again and again, it
writes a point of [0, 1]^d as a list and reads its value, a number that should be small. It ends with its input.
"""

import json
import sys
from collections.abc import Generator

Search = Generator[list[float], float, None]  # points, to each of which its value is sent

SPREAD = 0.2  # of CMA-ES's first points: a fifth of the range
EDGE = 0.02  # CMA-ES may begin so near a bound


def tpe(start: list[float], seed: int) -> Search:
    """Multivariate tree-structured Parzen estimator (Bergstra et al. 2011; Falkner et al. 2018), `start` first."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = [str(at) for at in range(len(start))]
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True))
    study.enqueue_trial(dict(zip(names, start, strict=True)))
    while True:
        trial = study.ask()
        study.tell(trial, (yield [trial.suggest_float(name, 0.0, 1.0) for name in names]))


def cma_es(start: list[float], seed: int) -> Search:
    """Covariance matrix adaptation (Hansen 2016, arXiv 1604.00772) around `start`, begun again once it converged."""
    import cma

    inside = [min(1 - EDGE, max(EDGE, value)) for value in start]
    for run in range(1, sys.maxsize):
        strategy = cma.CMAEvolutionStrategy(
            inside, SPREAD, {"bounds": [0, 1], "seed": 1000 * seed + run, "verbose": -9}
        )
        while not strategy.stop():
            asked = strategy.ask()
            values = []
            for point in asked:
                values.append((yield point.tolist()))
            strategy.tell(asked, values)


SEARCHES = {"tpe": tpe, "cma": cma_es}


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    search = SEARCHES[asked["kind"]](asked["start"], asked["seed"])
    point = next(search)
    while True:
        print(json.dumps(point), flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        point = search.send(json.loads(line))


if __name__ == "__main__":
    main()
