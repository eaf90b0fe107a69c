"""Telnyx's rate limit: so many requests per fixed window, with the headers that tell of it."""

from collections.abc import Callable
from math import ceil


class FixedWindow:
    """Windows begin at multiples of their length since 1970, so those of 60 s with UTC minutes."""

    def __init__(self, limit: int, window_seconds: float, clock: Callable[[], float]) -> None:
        self.limit = limit
        self.window_seconds = window_seconds
        self._clock = clock
        self._window = -1
        self._used = 0

    def take(self) -> tuple[bool, dict[str, str]]:
        """Whether one more request is allowed, and the headers for its answer."""
        now = self._clock()
        window = int(now // self.window_seconds)
        if window != self._window:
            self._window, self._used = window, 0
        allowed = self._used < self.limit
        self._used += allowed
        reset = max(1, ceil((window + 1) * self.window_seconds - now))
        headers = {
            "x-ratelimit-limit": f"{self.limit}, {self.limit};w={self.window_seconds:g}",
            "x-ratelimit-remaining": str(self.limit - self._used),
            "x-ratelimit-reset": str(reset),
        }
        if not allowed:
            headers["x-envoy-ratelimited"] = "true"
        return allowed, headers
