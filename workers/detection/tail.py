"""How unlikely a count is: both tails of a negative binomial, as minus the decimal logarithm.

A count whose rate is itself uncertain (learned from few calls, or varying from day to day) has this
distribution. `strength` says how certain the rate is, in calls: the larger, the nearer it is to a
Poisson count. Counts may be fractions, so that money divided by what a call weighs is one, too.
"""

import math
from typing import Final

_LEAST_MEAN: Final = 1e-6
_STRENGTHS: Final = (1e-3, 1e6)
_LARGEST: Final = 1e5
"""Beyond it only the ratio of count and mean tells: the strength is what limits certainty."""
_MOST_TERMS: Final = 3000
_EXACT: Final = 1e-9
_TINY: Final = 1e-300


def too_much(count: float, mean: float, strength: float) -> float:
    """−log₁₀ of the likelihood of at least `count` where `mean` is expected. Never negative."""
    count, mean, strength = _bounded(count, mean, strength)
    if count <= 0:
        return 0.0
    return _score(count, strength, mean / (mean + strength), strength / (mean + strength))


def too_little(count: float, mean: float, strength: float) -> float:
    """−log₁₀ of the likelihood of at most `count` where `mean` is expected. Never negative."""
    count, mean, strength = _bounded(count, mean, strength)
    return _score(strength, count + 1, strength / (mean + strength), mean / (mean + strength))


def _bounded(count: float, mean: float, strength: float) -> tuple[float, float, float]:
    count, mean = max(0.0, count), max(_LEAST_MEAN, mean)
    strength = min(max(strength, _STRENGTHS[0]), _STRENGTHS[1])
    shrink = _LARGEST / max(_LARGEST, count, mean)
    return count * shrink, mean * shrink, strength


def _score(a: float, b: float, x: float, rest: float) -> float:
    """−log₁₀ of the regularised incomplete beta function Iₓ(a, b); `rest` is 1 − x."""
    log_front = (
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log(max(rest, _TINY))
    )
    if x < (a + 1) / (a + b + 2):
        log = log_front - math.log(a) + math.log(_fraction(a, b, x))
        return max(0.0, -log / math.log(10))
    other = math.exp(min(0.0, log_front)) * _fraction(b, a, rest) / b
    return max(0.0, -math.log10(max(_EXACT, 1.0 - other)))


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method.

    https://dlmf.nist.gov/8.17.v
    """
    c, d = 1.0, _away_from_zero(1.0 - (a + b) * x / (a + 1))
    d = 1.0 / d
    value = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1.0 / _away_from_zero(1.0 + even * d)
        c = _away_from_zero(1.0 + even / c)
        value *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 / _away_from_zero(1.0 + odd * d)
        c = _away_from_zero(1.0 + odd / c)
        step = d * c
        value *= step
        if abs(step - 1.0) < _EXACT:
            break
    return max(value, _TINY)


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
