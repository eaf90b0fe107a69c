"""One question to Telnyx, asked by a person: no session, no Redis, and no second answer to compare.

What comes back is judged as the worker would judge it, with what a single answer allows.
"""

import difflib
from dataclasses import dataclass
from datetime import date
from typing import Final, Literal, TypeAlias

import msgspec

from service import __version__
from service.records import Call, Verdict
from service.settings import WorkerSettings
from workers.analysis import Analysis
from workers.answer import Failure, Invalid, Meaning, NotReady, RateLimited, Ready, Refused
from workers.attempt import Found
from workers.complete import complete
from workers.judge import Case, judge
from workers.metadata import RecordType, RecordTypes
from workers.policy import Policy
from workers.products import CALL_SESSION, RECORD_TYPES, is_known, normalise
from workers.telnyx import MAX_DEPTH, TelnyxClient
from workers.tree import build_tree, text

Expand: TypeAlias = Literal["record", "none"]


@dataclass(frozen=True, slots=True)
class Question:
    """Which event's tree is wanted, and how much of it."""

    record_type: str
    event_id: str
    date_time: date | None = None
    max_depth: int = MAX_DEPTH
    include_children: bool = True
    expand: Expand = "record"

    @property
    def wants_all(self) -> bool:
        """Whether nothing of the tree is left out on purpose."""
        return self.include_children and self.max_depth == MAX_DEPTH


def client(settings: WorkerSettings) -> TelnyxClient:
    """Telnyx as these settings say."""
    return TelnyxClient(settings.api_url, settings.api_key, version=__version__)


async def inquire(telnyx: TelnyxClient, question: Question) -> Found | Failure:
    """The answer to the question, as whole as the worker would have it."""

    async def ask(record_type: str, event_id: str) -> Meaning:
        return await telnyx.analysis(
            record_type,
            event_id,
            include_children=question.include_children,
            max_depth=question.max_depth,
            expand=question.expand,
            date_time=question.date_time,
        )

    meaning = await ask(question.record_type, question.event_id)
    if not isinstance(meaning, Ready):
        return meaning
    analysis = meaning.analysis
    root_type = _root_type(question, analysis)
    if not question.wants_all:
        return Found(analysis, build_tree(analysis, root_type), (_PARTIAL,), whole=False)
    completed = await complete(analysis, ask, root_type=root_type)
    remarks = completed.failures
    if completed.blocked:
        remarks = (*remarks, f"the rest was not to be had: {completed.blocked.reason}")
    return Found(
        completed.analysis,
        completed.tree,
        remarks,
        whole=completed.whole,
        grafted=completed.grafted,
    )


_PARTIAL: Final = "only a part of the tree was asked for, so Telnyx's sums were not checked"


def _root_type(question: Question, analysis: Analysis) -> str | None:
    """What the root is, where the question tells it: Telnyx may answer with a wider tree."""
    asked = normalise(question.record_type)
    is_asked = asked == CALL_SESSION or text(analysis.root.id) == question.event_id
    return asked if is_asked else None


def verdict_on(found: Found, policy: Policy, *, now_ms: int) -> Verdict:
    """What the policy says of it, as it stands now."""
    tree = found.tree
    case = Case(
        tree,
        Call(tree.session_id),
        whole=found.whole,
        grafted=found.grafted,
        remarks=found.remarks,
    )
    verdict = judge(case, policy, at_ms=now_ms)
    root = tree.events[0].product
    if root != CALL_SESSION:
        note = f"judged as if this {root} were the whole session"
        verdict = msgspec.structs.replace(verdict, remarks=(*verdict.remarks, note))
    # Whether Telnyx's answers have come to rest cannot be said after one of them.
    return msgspec.structs.replace(verdict, settled=True)


async def inquire_types(
    telnyx: TelnyxClient, name: str | None
) -> RecordTypes | RecordType | Failure:
    """What Telnyx says of its record types, or of one."""
    return await (telnyx.record_types() if name is None else telnyx.record_type(name))


def advice(failure: Failure, *, dated: bool = False) -> str:
    """One line: what happened to an analysis, and what to do."""
    match failure:
        case NotReady(reason=reason):
            day = ", and --date-time" if dated else ""
            return (
                f"Telnyx does not have it, or not yet ({reason}): cost comes minutes to hours "
                f"after a call's end; otherwise check record type and id{day}"
            )
        case Invalid(reason=reason):
            return (
                f"Telnyx cannot answer this ({reason}): check the id and the record type; "
                "`tollwatch record-types` lists those there are"
            )
        case _:
            return _of_telnyx(failure)


def advice_on_types(failure: Failure, name: str | None) -> str:
    """One line: what happened to a question about record types, and what to do."""
    if name is not None and isinstance(failure, NotReady | Invalid):
        return f"Telnyx has no record type {name!r} ({failure.reason}){hint(name)}"
    if isinstance(failure, NotReady | Invalid):
        return f"no metadata there ({failure.reason}): check TELNYX_API_URL"
    return _of_telnyx(failure)


def hint(record_type: str) -> str:
    """What a record type that the guide does not know was probably meant to be, or nothing."""
    if is_known(record_type):
        return ""
    near = difflib.get_close_matches(record_type.lower(), RECORD_TYPES, n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _of_telnyx(failure: Failure) -> str:
    match failure:
        case RateLimited(retry_after_seconds=seconds):
            return f"Telnyx's rate limit is reached: ask again in {seconds} s"
        case Refused(reason=reason):
            return (
                f"Telnyx refuses ({reason}): check TELNYX_API_KEY (an API v2 key with access to "
                "this data), and that the account is not disabled"
            )
        case _:
            return f"no usable answer ({failure.reason}): try again, and check TELNYX_API_URL"
