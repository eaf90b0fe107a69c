"""What was learned, on a terminal and as JSON. Pure."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from decimal import Decimal
from typing import Any, Final

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from workers.detection.baseline import Spread
from workers.detection.explain import cohort_in_words
from workers.detection.histogram import Bar
from workers.detection.measure import TOTAL
from workers.display import said, table_of, title, when
from workers.learned import Learned
from workers.products import label
from workers.wording import count, factor, percent, rough

_MONEY: Final[dict[str, str]] = {
    "total": "whole session",
    "per_minute": "whole session, a minute",
    "cost": "",
    "cost_per_minute": ", a minute",
    "each": ", for each event",
}
_COUNTS: Final[dict[str, str]] = {
    "events": ", events",
    "events_per_minute": ", events a minute",
}
_BILLED: Final = "billed"
_ORDER: Final = (*_MONEY, *_COUNTS, _BILLED)
_WIDEST_BAR: Final = 40
_EIGHTHS: Final = "▏▎▍▌▋▊▉█"


def cohorts_view(found: Iterable[Learned]) -> Table:
    """A list of cohorts, with what a session in them usually costs."""
    shown = table_of("cohort", ">calls", ">days", ">usual total", ">99 % under", "last call")
    for each in found:
        total = each.baseline.spreads.get(TOTAL)
        shown.add_row(
            said(each.known.name),
            Text(f"{each.baseline.calls:,}"),
            Text(f"{each.baseline.days:,}"),
            Text(_money(total.middle) if total else "free"),
            Text(_money(total.high) if total else ""),
            Text(when(each.known.last_ms)),
        )
    return shown


def cohort_view(learned: Learned) -> Iterator[RenderableType]:
    """All that was learned of one cohort."""
    baseline = learned.baseline
    days = "1 day" if baseline.days == 1 else f"{baseline.days:,} days"
    yield said(baseline.cohort, "bold")
    yield said(
        f"{cohort_in_words(baseline.cohort)}: {baseline.calls:,} calls in {days}, "
        f"the last one {when(learned.known.last_ms)}"
    )
    if learned.bars:
        yield title("What a session costs (older calls count for less)")
        yield _histogram(learned.bars)
    yield title("Usual")
    yield _measures(baseline.spreads)
    yield title("In its calls")
    yield _traits(baseline.traits, baseline.calls)
    if baseline.changes:
        yield title("Lately the new normal")
        yield from (said(f"  {cause}") for cause in baseline.changes)


def _histogram(bars: Sequence[Bar]) -> Text:
    labels = [(_money_of(bar.low), _money_of(bar.high)) for bar in bars]
    left, right = (max(len(pair[side]) for pair in labels) for side in (0, 1))
    whole = math.fsum(bar.calls for bar in bars)
    most = max(bar.calls for bar in bars)
    lines = Text()
    for bar, (low, high) in zip(bars, labels, strict=True):
        lines.append(f"  {low:>{left}} – {high:>{right}}  ")
        lines.append(f"{_bar(bar.calls / most):<{_WIDEST_BAR}}", "cyan")
        lines.append(f"  {percent(Decimal(bar.calls / whole)):>5}\n")
    lines.rstrip()
    return lines


def _bar(share: float) -> str:
    eighths = max(round(share * _WIDEST_BAR * 8), 1 if share else 0)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest - 1] if rest else "")


def _measures(spreads: dict[str, Spread] | Any) -> Table:
    shown = table_of("of", ">5 % under", ">usual", ">99 % under", ">calls")
    for name, spread in sorted(spreads.items(), key=lambda item: _place(item[0])):
        what, _, product = name.partition(":")
        shown.add_row(
            said(label(product) + _words(what)),
            *(Text(_value(what, log)) for log in (spread.low, spread.middle, spread.high)),
            Text(f"{spread.calls:,.0f}"),
        )
    return shown


def _place(name: str) -> tuple[str, int]:
    what, _, product = name.partition(":")
    return product, _ORDER.index(what)


def _words(what: str) -> str:
    return _MONEY.get(what, _COUNTS.get(what, ", billed for its started minutes"))


def _value(what: str, log: float) -> str:
    if what in _MONEY:
        return _money(log)
    value = math.exp(log)
    if what == _BILLED:
        return factor(Decimal(value), Decimal(1))
    return count(value)


def _traits(traits: Any, calls: int) -> Table:
    shown = table_of("what", "which", ">calls", ">share")
    for trait, number in sorted(traits.items(), key=lambda item: (item[0].split(":")[0], -item[1])):
        what, _, rest = trait.partition(":")
        shown.add_row(
            Text(what),
            said(_which(what, rest)),
            Text(f"{number:,}"),
            Text(percent(Decimal(number) / calls)),
        )
    return shown


def _which(what: str, rest: str) -> str:
    if what == "product":
        return label(rest)
    if what == "rate":
        product, country, rate = rest.rsplit(":", 2)
        return f"{label(product)} to {country}: {rate}"
    return rest


def _money(log: float) -> str:
    return _money_of(math.exp(log))


def _money_of(value: float) -> str:
    return rough(Decimal(value))


# --- for programs -------------------------------------------------------------------------------


def brief(learned: Learned) -> dict[str, Any]:
    """A cohort on one line."""
    baseline = learned.baseline
    total = baseline.spreads.get(TOTAL)
    return {
        "cohort": learned.known.name,
        "calls": baseline.calls,
        "days": baseline.days,
        "last_ms": learned.known.last_ms,
        "total": _figures(total) if total else None,
    }


def whole(learned: Learned) -> dict[str, Any]:
    """All of a cohort. Money, counts and ratios are estimates, and numbers therefore."""
    baseline = learned.baseline
    return {
        **brief(learned),
        "measures": {name: _figures(spread) for name, spread in sorted(baseline.spreads.items())},
        "traits": dict(sorted(baseline.traits.items())),
        "changes": baseline.changes,
        "histogram": [asdict(bar) for bar in learned.bars],
    }


def _figures(spread: Spread) -> dict[str, float]:
    return {
        "usual": math.exp(spread.middle),
        "low": math.exp(spread.low),
        "high": math.exp(spread.high),
        "calls": spread.calls,
    }
