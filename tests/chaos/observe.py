"""What has become of all of it: the product's own record, and what Slack was told."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from redis.asyncio import Redis

from service import keys
from service.records import ACCOUNT, Session, Severity
from service.store import Store
from tests.chaos.accounting import SUMMARY, Message, Outcome, Told
from tests.world.slack import Posted, SlackWorld
from workers.baselines import Baselines

_SESSION: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SEVERITY: Final = re.compile(r"^\W*(low|medium|high|critical)\b", re.IGNORECASE)
_SUMMARY: Final = re.compile(r"tollwatch alerts --summary (\d+)")
"""A summary names a few of its calls, and how to list them all."""


def read_message(posted: Posted) -> Message:
    """Whom a message is about; a summary is about many, and a notice about nobody."""
    severity, session = _SEVERITY.match(posted.text), _SESSION.search(posted.all_text)
    summary = _SUMMARY.search(posted.all_text)
    if summary:
        return Message(posted.at, summary[1], SUMMARY, posted.text)
    if severity and session:
        return Message(posted.at, session[0], severity[1].lower(), posted.text)
    return Message(posted.at, None, "", posted.text)


def told(slack: SlackWorld) -> set[tuple[str, str]]:
    """Session and severity of all that Slack was told, summaries included."""
    messages = map(read_message, slack.messages)
    return {(m.session_id, m.severity) for m in messages if m.session_id}


def refused_for_good(slack: SlackWorld) -> frozenset[tuple[str, str]]:
    """Session and severity of the posts that got one of Slack's final words."""
    final = (post.body.decode() for post in slack.refused if post.status in {403, 404, 410})
    found = ((_SEVERITY.search(_text(body)), _SESSION.search(body)) for body in final)
    return frozenset((s[0], severity[1].lower()) for severity, s in found if severity and s)


async def outcomes(store: Store, ids: Iterable[str]) -> dict[str, Outcome]:
    """By session, what the record says of those that it knows."""
    found = [(id, await store.session(id)) for id in ids]
    return {id: _outcome(session) for id, session in found if session}


async def alerts(store: Store, ids: Iterable[str]) -> Sequence[Told]:
    """All alerts that were decided of those sessions, and what became of each."""
    found: list[Told] = []
    for id in ids:
        for severity in Severity:
            posting = await store.posting(f"{id}:{severity}")
            if posting:
                found.append(Told(id, severity.value, posting.delivery.value, posting.summary))
    return found


async def lessons(redis: Redis, day: int) -> tuple[int, int]:
    """Sessions marked as having taught the account, and calls that it has learned from."""
    marks = [await redis.get(name) async for name in redis.scan_iter(f"{keys.LESSON}*")]
    taught = sum(int(mark.split(b" ")[1].split(b",")[-2]) for mark in marks)
    return taught, (await Baselines(redis, retention_ms=1).baseline(ACCOUNT, day)).calls


def _outcome(session: Session) -> Outcome:
    verdict = session.verdict
    return Outcome(
        state=session.state.value,
        total=verdict.total if verdict else None,
        complete=verdict.complete if verdict else True,
        reasons=frozenset(r.code for r in verdict.reasons) if verdict else frozenset(),
        reason=session.reason,
    )


def _text(body: str) -> str:
    """The fallback, which a payload begins with."""
    return body.partition('"text":"')[2]
