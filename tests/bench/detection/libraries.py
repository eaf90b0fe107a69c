"""The alternatives from libraries: river's half-space trees and PyOD's isolation forest.

Only `make bench-detection` installs the two.
"""

import math
from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
from pyod.models.iforest import IForest
from river import anomaly, preprocessing

from tests.bench.detection.features import FEATURES, Session
from tests.bench.detection.rules import DAY, LEAST_HISTORY, Detector, LogMeanSigma, logs

_LEAST_TRAINED_ON: Final = 60
_TRAINED_ON: Final = 500


class HalfSpaceTrees:
    """river: trees that learn with every call, per cohort.

    https://riverml.xyz/ (anomaly.HalfSpaceTrees).
    """

    name = "river HalfSpaceTrees"

    def __init__(self) -> None:
        self._models: dict[str, tuple[Any, Any]] = {}

    def scores(self, sessions: Sequence[Session]) -> list[float]:
        """Between 0 and 1."""
        return [self._score(session) if session.answered else 0.0 for session in sessions]

    def _score(self, session: Session) -> float:
        if session.cohort not in self._models:
            trees = anomaly.HalfSpaceTrees(n_trees=15, height=7, window_size=100, seed=1)
            self._models[session.cohort] = (preprocessing.StandardScaler(), trees)
        scaler, trees = self._models[session.cohort]
        values = dict(zip(FEATURES, logs(session.values), strict=True))
        scaler.learn_one(values)
        # The trees want values from 0 to 1.
        scaled = {name: _squashed(value) for name, value in scaler.transform_one(values).items()}
        score = float(trees.score_one(scaled))
        trees.learn_one(scaled)
        return score


class DailyForest:
    """PyOD: an isolation forest of the account, grown anew each midnight from its last calls.

    One per cohort would be too slow; so each measure is first taken relative to its cohort's past.
    https://pyod.readthedocs.io/ (IForest).
    """

    name = "PyOD IForest, daily"

    def __init__(self) -> None:
        self._cohorts: dict[str, LogMeanSigma] = {}
        self._account = LogMeanSigma()
        self._past: deque[list[float]] = deque(maxlen=_TRAINED_ON)
        self._forest: IForest | None = None

    def scores(self, sessions: Sequence[Session]) -> list[float]:
        """0 before there is a forest."""
        found: list[float] = []
        for _, of_day in groupby(sessions, key=lambda session: session.ended // DAY):
            self._grow()
            found += self._of_day(list(of_day))
        return found

    def _of_day(self, sessions: Sequence[Session]) -> list[float]:
        """All at once, which is much faster; a forest judges each by itself."""
        relative = [self._relative(s) if s.answered else None for s in sessions]
        known = [row for row in relative if row is not None]
        self._past.extend(known)
        if self._forest is None or not known:
            return [0.0] * len(sessions)
        judged = iter(self._forest.decision_function(np.array(known)))
        return [0.0 if row is None else float(next(judged)) for row in relative]

    def _relative(self, session: Session) -> list[float] | None:
        own = self._cohorts.setdefault(session.cohort, LogMeanSigma())
        used = own if own.count >= LEAST_HISTORY else self._account
        relative = used.distances(session.values) if used.count >= LEAST_HISTORY else None
        own.learn(session.values)
        self._account.learn(session.values)
        return relative

    def _grow(self) -> None:
        if len(self._past) >= _LEAST_TRAINED_ON:
            self._forest = IForest(n_estimators=30, n_jobs=1, random_state=1)
            self._forest.fit(np.array(self._past))


def libraries() -> list[Detector]:
    """Fresh ones, for one customer's month."""
    return [HalfSpaceTrees(), DailyForest()]


def _squashed(value: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, value / 2))))
