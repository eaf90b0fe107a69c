"""Who found what: thresholds from the tuning months, figures from the reporting months."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar

from tests.bench.detection import counts, scoring, timeline, tollwatch
from tests.bench.detection.counts import Counter, Step
from tests.bench.detection.data import Recording
from tests.bench.detection.intervals import Comparison, compare
from tests.bench.detection.scoring import Count, Quality, Truth
from tests.bench.detection.timeline import Alert, Match, Stretch

PER_1000: Final = 1.0
"""False alerts allowed per 1,000 normal calls."""
_THRESHOLDS: Final = tuple(2.5 * 1.12**step for step in range(45))
"""Tried for call counts: from 2.5 to about 366 standard deviations."""

V = TypeVar("V")
Scores: TypeAlias = Mapping[str, Sequence[float]]
"""By a recording's name, one score for each of its sessions."""


@dataclass(frozen=True, slots=True)
class Sessions:
    """A detector of sessions, with what it said of the scored sessions of some months."""

    name: str
    truths: Sequence[Truth]
    scores: Sequence[float]
    alerted: Sequence[bool]
    threshold: float | None = None

    def quality(self, kind: str | None = None, sizes: Sequence[str] = scoring.VISIBLE) -> Quality:
        """Of one kind, or of all together."""
        return scoring.quality(self.truths, self.alerted, kind=kind, sizes=sizes)

    def found(self, kind: str, alerted: Sequence[bool] | None = None) -> list[bool]:
        """Which of a kind's visible anomalies it found."""
        return scoring.found(self.truths, self.alerted if alerted is None else alerted, kind=kind)

    def with_false(self, allowed: int) -> list[bool]:
        """What it would alert with at most so many false alerts, at its best on this very data."""
        normal = scoring.normal_scores(self.truths, self.scores)
        return scoring.alerts(self.scores, scoring.threshold_for(normal, allowed))


@dataclass(frozen=True, slots=True)
class Spans:
    """A detector of spans, with what became of each month's."""

    name: str
    matches: Sequence[Match]

    def recall(self, kind: str) -> Count:
        """Over all months."""
        counted = [match.recall(kind) for match in self.matches]
        return Count(sum(c.found for c in counted), sum(c.of for c in counted))

    def delays(self, kind: str) -> list[float]:
        """Seconds from a span's start until it was told of, of those that were found."""
        return sorted(
            at - span.start
            for match in self.matches
            for span, at in match.found_at
            if span.kind == kind and span.size in scoring.VISIBLE and at is not None
        )

    def found(self, kind: str) -> list[bool]:
        """Which of a kind's visible spans it found, in the same order for every detector."""
        return [
            at is not None
            for match in self.matches
            for span, at in match.found_at
            if span.kind == kind and span.size in scoring.VISIBLE
        ]

    @property
    def false(self) -> int:
        """Findings about nothing."""
        return sum(len(match.false) for match in self.matches)

    @property
    def false_in_fine(self) -> int:
        """Those of them that a planned campaign or a holiday caused."""
        return sum(len(match.false_in_fine) for match in self.matches)


def pooled(recordings: Iterable[Recording], values: Mapping[str, Sequence[V]]) -> list[V]:
    """The values of the sessions that are scored, of all months in a row."""
    return [
        value
        for recording in recordings
        for value, is_scored in zip(values[recording.name], recording.scored, strict=True)
        if is_scored
    ]


def truths(recordings: Sequence[Recording]) -> list[Truth]:
    """Of the sessions that are scored."""
    return pooled(recordings, {recording.name: recording.truths for recording in recordings})


# --- sessions -----------------------------------------------------------------------------------


def alternative(
    name: str, tuning: Sequence[Recording], reporting: Sequence[Recording], scores: Scores
) -> Sessions:
    """An alternative with the threshold that is best on the tuning months."""
    tuned = scoring.normal_scores(truths(tuning), pooled(tuning, scores))
    threshold = scoring.threshold_for(tuned, scoring.allowed_false(len(tuned), PER_1000))
    reported = pooled(reporting, scores)
    alerted = scoring.alerts(reported, threshold)
    return Sessions(name, truths(reporting), reported, alerted, threshold)


def ours(recordings: Sequence[Recording], runs: Mapping[str, tollwatch.Backtest]) -> Sessions:
    """tollwatch, at the point at which it works."""
    said = {name: run.sessions for name, run in runs.items()}
    chosen = pooled(recordings, said)
    return Sessions(
        tollwatch.NAME,
        truths(recordings),
        [each.score for each in chosen],
        [each.anomalous for each in chosen],
    )


def behind(mine: Sessions, other: Sessions, kind: str) -> Comparison:
    """Against an alternative that may alert falsely as often as tollwatch does."""
    alerted = other.with_false(mine.quality().false.found)
    return compare(mine.found(kind), other.found(kind, alerted))


# --- spans --------------------------------------------------------------------------------------


def spans_of_sessions(method: Sessions, recordings: Sequence[Recording]) -> Spans:
    """What a detector of sessions finds of the spans: by the sessions in them."""
    alerted = iter(method.alerted)
    matches = []
    for recording in recordings:
        told = [is_scored and next(alerted) for is_scored in recording.scored]
        matches.append(_match(recording, _session_alerts(recording, told)))
    return Spans(method.name, matches)


def spans_of_ours(recordings: Sequence[Recording], runs: Mapping[str, tollwatch.Backtest]) -> Spans:
    """tollwatch: by sessions and by findings."""
    matches = []
    for recording in recordings:
        run = runs[recording.name]
        told = [each.anomalous for each in run.sessions]
        alerts = [*_session_alerts(recording, told), *run.findings]
        matches.append(_match(recording, alerts, budgets=True))
    return Spans(tollwatch.NAME, matches)


@dataclass(frozen=True, slots=True)
class CountSteps:
    """The steps of one detector of counts, of each month. They do not depend on a threshold."""

    name: str
    steps: Mapping[str, Sequence[Step]]

    def spans(self, recordings: Sequence[Recording], thresholds: Mapping[str, float]) -> Spans:
        """What it finds at those thresholds."""
        return Spans(
            self.name,
            [
                _match(recording, counts.findings(self.steps[recording.name], thresholds))
                for recording in recordings
            ],
        )

    def thresholds(self, recordings: Sequence[Recording], allowed: int) -> dict[str, float]:
        """The lowest of each kind with at most so many false findings, half of them for each."""
        return {
            kind: self._threshold(recordings, kind, allowed // 2) for kind in ("velocity", "drop")
        }

    def _threshold(self, recordings: Sequence[Recording], kind: str, allowed: int) -> float:
        for threshold in _THRESHOLDS:
            silent = {"velocity": float("inf"), "drop": float("inf"), kind: threshold}
            if self.spans(recordings, silent).false <= allowed:
                return threshold
        return float("inf")


def count_steps(
    name: str, counter: Callable[[], Counter], recordings: Sequence[Recording]
) -> CountSteps:
    """Runs a detector of counts over all months."""
    found: dict[str, Sequence[Step]] = {}
    for recording in recordings:
        begin = recording.evaluate_from - 86_400
        steps = counts.steps(recording.sessions, counter, begin, above=_THRESHOLDS[0])
        found[recording.name] = [step for step in steps if step.end > recording.evaluate_from]
    return CountSteps(name, found)


def _match(recording: Recording, alerts: Sequence[Alert], *, budgets: bool = False) -> Match:
    spans: list[Stretch] = [span for span in recording.spans if budgets or span.kind != "budget"]
    late = [alert for alert in alerts if alert.at >= recording.evaluate_from]
    return timeline.match(spans, late, recording.dear_at)


def _session_alerts(recording: Recording, told: Sequence[bool]) -> list[Alert]:
    return [
        Alert("session", session.ended + timeline.SETTLING_SECONDS, session.ended, session.ended,
              within=within)
        for session, within, is_told in zip(
            recording.sessions, recording.within, told, strict=True
        )
        if is_told
    ]  # fmt: skip
