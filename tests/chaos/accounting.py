"""What a run must have come to: pure, from what was seen to what is not as it must be.

What must be follows from what was injected, by the simulated outside, which shares no code with
the product. What was, comes from the product's own record and from what Slack was told: the two
have to agree.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal

TAKEOVER_SECONDS: Final = 30.0
"""A dead worker's session must be taken up within this time."""
EXIT_SECONDS: Final = 30.0
"""And so long a process may take to end after SIGTERM."""
RECOVERY_SECONDS: Final = 90.0
"""So long after a fault has ended the work that it stopped must go on."""
HELD_SECONDS: Final = 30.0
"""Nobody may hold a session for longer in one go: attempts are short here."""

SUMMARY: Final = "summary"
"""What a summary has in the place of a severity."""

_NOTE_SECONDS: Final = 1.5
"""What noting takes at most where Redis is there."""
_TOLD: Final = "posted"
_SUMMARIZED: Final = "summarized"
_SETTLED_FATES: Final = frozenset({_TOLD, _SUMMARIZED, "refused"})

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must become of one call; without severities it must stay silent."""

    session_id: str
    kind: str
    state: Literal["verdict", "unavailable", "dead"]
    total: Decimal | None = None
    severities: frozenset[str] = frozenset()
    """Any of which is right as the last word; a lower one before it is right as well."""
    reasons: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the product's record says of one session."""

    state: str
    total: Decimal | None = None
    complete: bool = True
    reasons: frozenset[str] = frozenset()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """An alert, as the product's record has it."""

    session_id: str
    severity: str
    fate: str
    summary: str | None = None
    """The number of the summary that tells of it, or is to."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.fate in _SETTLED_FATES


@dataclass(frozen=True, slots=True)
class Message:
    """What Slack took. A summary has its number for a session; a notice has none."""

    at: float
    session_id: str | None
    severity: str
    """`summary` for one of those."""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Excuse:
    """Why one alert may have been told once more.

    Who was posting it was killed or paused and could not remember that; or Slack cut the connection
    off as it had just taken it, and nobody but Slack knows.
    """

    session_id: str
    severity: str
    cause: Literal["killed", "paused", "cut"]
    since: float = 0.0
    """What Slack took before that, in unix seconds, there was time enough to remember."""


@dataclass(frozen=True, slots=True)
class Struck:
    """One fault as it went. `met` is how much work it hit, `met_what` in words what that was."""

    kind: str
    at_seconds: float
    lasted_seconds: float
    in_flight: int
    met: int
    met_what: str
    recovered_seconds: float | None
    """From its end until the work went on; None where it never did."""
    hindered_seconds: float = 0.0
    """How much of that time another fault kept everybody from working."""

    @property
    def recovery_seconds(self) -> float | None:
        """What getting over it took of itself."""
        gross = self.recovered_seconds
        return None if gross is None else max(0.0, gross - self.hindered_seconds)


@dataclass(frozen=True, slots=True)
class Takeover:
    """One lease of a dead worker: after how long another had it, None for never.

    `hindered_seconds` is how much of that time Redis or Telnyx was away for everybody.
    """

    kind: str
    session_id: str
    seconds: float | None
    hindered_seconds: float = 0.0
    allowed_seconds: float = TAKEOVER_SECONDS


@dataclass(frozen=True, slots=True)
class Held:
    """For how long one lease was seen, and how much of that time nobody could do anything."""

    session_id: str
    seconds: float
    hindered_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a process that was told to stop."""

    process: str
    code: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Observation:
    """All that was seen in one run."""

    kinds: Sequence[str]
    expected: Sequence[Expectation]
    accepted: frozenset[str]
    """Sessions of which any event got a 2xx that promised to look after it."""
    ignored: Sequence[str] = ()
    """Sessions of which an event that ends a call was answered as being of no interest."""
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    alerts: Sequence[Told] = ()
    messages: Sequence[Message] = ()
    excuses: Sequence[Excuse] = ()
    refusals: frozenset[tuple[str, str]] = frozenset()
    """Session and severity of what Slack refused for good."""
    strikes: Sequence[Struck] = ()
    takeovers: Sequence[Takeover] = ()
    longest_held: Sequence[Held] = ()
    endings: Sequence[Ending] = ()
    failed_tries: Mapping[str, int] = field(default_factory=dict)
    """By session, how many attempts failed of themselves."""
    complaints: Sequence[str] = ()
    """Lines of the processes that nobody expected: errors and tracebacks."""
    crashes: Sequence[str] = ()
    """Processes that ended although nobody had told them to."""
    statuses: Counter[int | str] = field(default_factory=Counter)
    """The web processes' answers to attempts at delivery."""
    lessons: int = 0
    """Sessions that are marked as having taught the account what is usual."""
    learned: int = 0
    """Calls that the account has learned from."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What is not as it must be: the rule, and whom it concerns."""

    rule: str
    text: str
    session_id: str = ""


def violations(seen: Observation) -> list[Violation]:
    """All that is not as it must be; empty for a run in which everything held."""
    return [
        *_of_sessions(seen),
        *_of_alerts(seen),
        *_of_messages(seen),
        *_of_tries(seen),
        *_of_faults(seen),
        *_of_takeovers(seen),
        *_of_leases(seen),
        *_of_processes(seen),
        *_of_lessons(seen),
    ]


def repetitions(messages: Iterable[Message]) -> dict[tuple[str, str], int]:
    """By session and severity, how many times too often Slack was told of it."""
    told = Counter((m.session_id, m.severity) for m in messages if m.session_id)
    return {(str(id), severity): n - 1 for (id, severity), n in told.items() if n > 1}


def told_again(seen: Observation) -> dict[tuple[str, str], int]:
    """`repetitions`, for which a summary is a message of each of its alerts."""
    summarized = (a for a in seen.alerts if a.fate == _SUMMARIZED)
    in_summaries = (Message(0.0, alert.session_id, alert.severity) for alert in summarized)
    return repetitions([*seen.messages, *in_summaries])


def overlap(since: float, until: float, intervals: Iterable[Interval]) -> float:
    """How much of the time from `since` to `until` lies in any of the intervals."""
    total, reached = 0.0, since
    for begin, end in sorted(intervals):
        begun, ended = max(begin, reached), min(end, until)
        if ended > begun:
            total += ended - begun
            reached = ended
    return total


def unnoted_since(at: float, away: Iterable[Interval]) -> float:
    """From when on a post may have had no time to be noted at `at`, for Redis was `away`."""
    since = at - _NOTE_SECONDS
    for begin, end in sorted(away, reverse=True):
        if begin < since <= end:
            since = begin - _NOTE_SECONDS
    return since


def _of_sessions(seen: Observation) -> Iterator[Violation]:
    for expected in seen.expected:
        outcome = seen.outcomes.get(expected.session_id)
        if outcome is None:
            if expected.session_id in seen.accepted:
                yield _about(expected, "lost", "got a 2xx and nothing is known of it")
        else:
            # What was kept without a 2xx that reached the sender is kept all the same.
            yield from _of_session(expected, outcome)
    for session_id in seen.ignored:
        yield Violation("ignored", f"{session_id}: its end was of no interest", session_id)


def _of_session(expected: Expectation, outcome: Outcome) -> Iterator[Violation]:
    if outcome.state == "open":
        yield _about(expected, "not ended", f"is still open ({outcome.reason})")
    elif outcome.state != expected.state:
        why = f" ({outcome.reason})" if outcome.reason else ""
        yield _about(expected, "wrong state", f"is {outcome.state}{why}, not {expected.state}")
    elif expected.state == "verdict":
        yield from _of_verdict(expected, outcome)


def _of_verdict(expected: Expectation, outcome: Outcome) -> Iterator[Violation]:
    # Parts that could not be had before the last age are missing, and the verdict says so.
    total, right = outcome.total, expected.total
    is_part = not outcome.complete and total is not None and right is not None and total < right
    if total != right and not is_part:
        text = f"was judged to cost {total}, its cost is {right}"
        yield _about(expected, "wrong total", text)
    if expected.reasons and not expected.reasons & outcome.reasons:
        found, wanted = (", ".join(sorted(r)) for r in (outcome.reasons, expected.reasons))
        text = f"is anomalous for {found or 'nothing'}, not for {wanted}"
        yield _about(expected, "wrong reason", text)


def _of_alerts(seen: Observation) -> Iterator[Violation]:
    decided: dict[str, list[Told]] = {}
    for alert in seen.alerts:
        decided.setdefault(alert.session_id, []).append(alert)
    for expected in seen.expected:
        alerts = decided.get(expected.session_id, [])
        if expected.session_id in seen.outcomes:
            yield from _of_severities(expected, [alert.severity for alert in alerts])
        for alert in alerts:
            yield from _of_fate(expected, alert, seen)


def _of_severities(expected: Expectation, severities: Sequence[str]) -> Iterator[Violation]:
    if not expected.severities:
        if severities:
            yield _about(expected, "false alarm", f"alerted as {', '.join(severities)}")
    elif not severities:
        yield _about(expected, "no alert", "had to alert, and did not")
    elif not expected.severities & set(severities):
        right = " or ".join(sorted(expected.severities))
        yield _about(expected, "wrong severity", f"alerted as {', '.join(severities)}, not {right}")


def _of_fate(expected: Expectation, alert: Told, seen: Observation) -> Iterator[Violation]:
    key = (alert.session_id, alert.severity)
    count = sum((m.session_id, m.severity) == key for m in seen.messages)
    if not alert.is_settled:
        yield _about(expected, "not told", f"its alert ({alert.severity}) is {alert.fate}")
    elif alert.fate == _TOLD and not count:
        yield _about(expected, "not told", f"its alert ({alert.severity}) never reached Slack")
    elif alert.fate == _SUMMARIZED and not _is_told_of(alert.summary, seen):
        text = f"its alert ({alert.severity}) is said to be in a summary that Slack never got"
        yield _about(expected, "not told", text)
    elif alert.fate == "refused" and key not in seen.refusals:
        text = f"its alert ({alert.severity}) is refused, and Slack refused no such thing"
        yield _about(expected, "wrongly refused", text)


def _is_told_of(summary: str | None, seen: Observation) -> bool:
    return (summary, SUMMARY) in {(m.session_id, m.severity) for m in seen.messages}


def _of_messages(seen: Observation) -> Iterator[Violation]:
    known = {(alert.session_id, alert.severity) for alert in seen.alerts}
    known |= {(alert.summary, SUMMARY) for alert in seen.alerts if alert.summary}
    for message in seen.messages:
        if message.session_id and (message.session_id, message.severity) not in known:
            text = f"Slack was told ({message.severity}) what the record does not have"
            yield Violation("unknown alert", f"{message.session_id}: {text}", message.session_id)
    excused = Counter((e.session_id, e.severity) for e in seen.excuses if _is_good(e, seen))
    for (session_id, severity), times in told_again(seen).items():
        if times > excused[session_id, severity]:
            text = f"told of it ({severity}) {times + 1} times, excused: "
            text += str(excused[session_id, severity])
            yield Violation("told twice", f"{session_id}: {text}", session_id)


def _is_good(excuse: Excuse, seen: Observation) -> bool:
    key = (excuse.session_id, excuse.severity)
    return any((m.session_id, m.severity) == key and m.at >= excuse.since for m in seen.messages)


def _of_tries(seen: Observation) -> Iterator[Violation]:
    may_fail = {expected.session_id for expected in seen.expected if expected.state == "dead"}
    for session_id, times in seen.failed_tries.items():
        if session_id not in may_fail:
            yield Violation("try spent", f"{session_id}: {times} of its own", session_id)


def _of_faults(seen: Observation) -> Iterator[Violation]:
    met = Counter(dict.fromkeys(seen.kinds, 0))
    for strike in seen.strikes:
        met[strike.kind] += strike.met
        recovered = strike.recovery_seconds
        if recovered is None or recovered > RECOVERY_SECONDS:
            after = "never" if recovered is None else f"after {recovered:.1f} s"
            text = f"{strike.kind} at {strike.at_seconds:.1f} s: work went on {after}"
            yield Violation("no recovery", text)
    for kind, count in met.items():
        if not count:
            yield Violation("hit nothing", f"{kind}: it met no work, so it proves nothing")


def _of_takeovers(seen: Observation) -> Iterator[Violation]:
    for takeover in seen.takeovers:
        seconds = takeover.seconds
        if seconds is None or seconds - takeover.hindered_seconds > takeover.allowed_seconds:
            when = "never" if seconds is None else f"after {seconds:.1f} s"
            text = f"{takeover.session_id} ({takeover.kind}): taken up {when}"
            if takeover.hindered_seconds:
                text += f", hindered for {takeover.hindered_seconds:.1f} s"
            yield Violation("slow takeover", text, takeover.session_id)


def _of_leases(seen: Observation) -> Iterator[Violation]:
    for held in seen.longest_held:
        if held.seconds - held.hindered_seconds > HELD_SECONDS:
            text = f"{held.session_id}: one lease for {held.seconds:.1f} s"
            if held.hindered_seconds:
                text += f", hindered for {held.hindered_seconds:.1f} s"
            yield Violation("stuck", text, held.session_id)


def _of_processes(seen: Observation) -> Iterator[Violation]:
    for ending in seen.endings:
        if ending.code != 0:
            yield Violation("exit code", f"{ending.process}: {ending.code} after SIGTERM")
        if ending.seconds > EXIT_SECONDS:
            yield Violation("slow end", f"{ending.process}: {ending.seconds:.1f} s after SIGTERM")
    for crash in seen.crashes:
        yield Violation("crash", crash)
    for complaint in seen.complaints:
        yield Violation("unexpected error", complaint)
    for status in seen.statuses:
        # A refusal that is not 503 would be final to Telnyx: the event would be lost.
        if isinstance(status, int) and status >= 300 and status != 503:
            text = f"{seen.statuses[status]} signed webhooks were answered with {status}"
            yield Violation("wrong answer", text)


def _of_lessons(seen: Observation) -> Iterator[Violation]:
    if not seen.lessons:
        yield Violation("nothing learned", "no session has taught what is usual")
    if seen.lessons != seen.learned:
        text = f"{seen.lessons} sessions have taught {seen.learned} calls"
        yield Violation("not taught once", text)


def _about(expected: Expectation, rule: str, text: str) -> Violation:
    return Violation(rule, f"{expected.session_id} ({expected.kind}) {text}", expected.session_id)
