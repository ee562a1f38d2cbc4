"""Times that a cron expression says, in a time zone: which was the last, which is the next. Pure.

What happens when clocks are changed is Debian cron's way: a time that is passed over in spring is at the end of the
gap, one that comes twice in autumn is the first of both; what runs every hour or more often goes by real time.
"""

import re
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from agentk.api import errors

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELD = re.compile(r"[0-9A-Za-z*,/#-]{1,256}")
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,3}")
_HERE = "/etc/localtime"
_RANGES = "minute 0-59, hour 0-23, day of month 1-31, month 1-12 or JAN-DEC, day of week 0-7 or SUN-SAT"
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Cron:
    expression: str  # five fields
    zone: tzinfo

    def after(self, moment: datetime) -> datetime | None:
        """The first time later than `moment`, UTC; None when there is none within 50 years."""
        return next(self._times(moment, reverse=False), None)

    def until(self, moment: datetime) -> datetime | None:
        """The last time that is not later than `moment`, UTC."""
        return next(self._times(moment.astimezone(UTC) + _TICK, reverse=True), None)

    def _times(self, moment: datetime, *, reverse: bool) -> Iterator[datetime]:
        import cronsim  # only where there is a Schedule

        found = cronsim.CronSim(self.expression, moment.astimezone(self.zone), reverse=reverse)
        return (time.astimezone(UTC) for time in found)


def parse(expression: str, zone: tzinfo = UTC) -> Cron:
    """Raises Invalid with what is wrong with it."""
    import cronsim

    text = " ".join(_MACROS.get(expression.strip().lower(), expression).split())
    fields = text.split(" ")
    if text.startswith("@"):
        raise errors.Invalid(f"{text!r} is not known", hint=f"known are {', '.join(sorted(_MACROS))}")
    if len(fields) != 5 or not all(_FIELD.fullmatch(field) for field in fields):
        hint = "minute, hour, day of month, month, day of week: 30 6 * * MON-FRI"
        raise errors.Invalid(f"expected five fields, found {text!r}", hint=hint)
    try:
        cronsim.CronSim(text, datetime(2026, 1, 1, tzinfo=UTC))
    except cronsim.CronSimError as error:
        raise errors.Invalid(f"{text!r}: {str(error).lower()}", hint=_RANGES) from None
    made = Cron(text, zone)
    if made.after(datetime(2026, 1, 1, tzinfo=UTC)) is None:
        raise errors.Invalid(f"{text!r} never comes")
    return made


def zone(name: str) -> tzinfo:
    """By its name; "" is this machine's own. Raises Invalid."""
    if not name:
        return _here()
    try:
        if not _ZONE.fullmatch(name):
            raise ValueError(name)
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise errors.Invalid(f"no time zone {name!r}", hint=_near(name)) from None


def _near(name: str) -> str:
    """Which one may have been meant; a city alone is enough."""
    import difflib  # heavy, and only for errors

    known = zoneinfo.available_timezones()
    if not known:
        return "this machine has none: install tzdata"
    words = {one.rpartition("/")[2].lower(): one for one in sorted(known)} | {
        one.lower(): one for one in known
    }
    near = difflib.get_close_matches(name.lower()[:64].replace(" ", "_"), words, n=1, cutoff=0.8)
    return f"did you mean '{words[near[0]]}'?" if near else "such as Europe/Berlin or UTC"


def _here() -> tzinfo:
    try:
        with open(_HERE, "rb") as file:
            return zoneinfo.ZoneInfo.from_file(file)
    except (ValueError, OSError):
        return UTC
