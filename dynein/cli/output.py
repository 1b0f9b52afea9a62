"""What the command line prints: text for people, or with ``--json`` an object a line for programs.

Results go to standard output; errors, progress and remarks to standard error. Lines are never wrapped, so that a token
can be copied and a pipe gets one line for each item. Without a terminal there are no colours.

Every line passes through `line`: whatever text a job, a queue or a server brings along, it is shown on that line and
does nothing else to the terminal.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from dynein.observability.one_line import as_json, flattened

if TYPE_CHECKING:  # they bring the AWS SDK along, and `dynein submit` should be quick
    from dynein.admin import redrive
    from dynein.admin.audit import Report
    from dynein.admin.export_audit import ExportReport
    from dynein.admin.restore import RestoreReport
    from dynein.admin.tail import Arrived
    from dynein.aws.bootstrap import Step
    from dynein.core.ledger import Row

Part = str | tuple[str, str]
"""Text, or text with a style."""

_out = Console(highlight=False, emoji=False, markup=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, emoji=False, markup=False, soft_wrap=True)
"""For progress bars, which are drawn on it; lines are printed by `print_remark`."""

_OPTIONS = {
    "attributes": "--attribute",
    "body": "body",
    "message_group_id": "--group",
    "queue": "queue",
    "run_at": "--at",
}
"""Fields of a request whose name on the command line differs; any other is an option of the same name."""
_MINUTE_MS, _HOUR_MS, _DAY_MS = 60_000, 3_600_000, 86_400_000
_NOW_MS = 50
_BODY_CHARS = 60
_NAME_CHARS = 256
_ON_TIME_MS = 100
_ABOUT_A_SECOND_MS = 1100


def line(*parts: Part) -> Text:
    """One line of these parts. Line breaks, controls and what is not shown are escaped; markup is text."""
    safe = [flattened(part) if isinstance(part, str) else (flattened(part[0]), part[1]) for part in parts]
    return Text.assemble(*safe)


def print_line(*parts: Part) -> None:
    """Print a `line` on standard output."""
    _out.print(line(*parts))


def print_remark(*parts: Part) -> None:
    """Print a `line` on standard error."""
    err.print(line(*parts))


def print_json(value: Any) -> None:  # noqa: ANN401 - whatever msgspec can encode
    """One JSON value, one line, at once (so that a pipe sees it)."""
    sys.stdout.write(as_json(value) + "\n")
    sys.stdout.flush()


def print_fields(fields: Mapping[str, Any]) -> None:
    """One field a line."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print_line((f"{name:<{width}}  ", "dim"), _plain(value))


def print_job(job: Mapping[str, Any], now_ms: int) -> None:
    """The API's response about a job; the due time once, with how far away it is."""
    fields = {name: value for name, value in job.items() if name != "due_at_ms"}
    if "due_at_ms" in job:
        fields["due_at"] = f"{job['due_at']} ({from_now(job['due_at_ms'] - now_ms)})"
    print_fields(fields)


def from_now(ms: int) -> str:
    """How far away a moment is, in rounded units: ``in 20.0 s``, ``3 h 5 min ago``, ``now``."""
    distance = abs(ms)
    if distance < _NOW_MS:
        return "now"
    if distance < _MINUTE_MS - _NOW_MS:
        span = f"{distance / 1000:.1f} s"
    elif distance < _HOUR_MS - _MINUTE_MS:
        span = f"{round(distance / _MINUTE_MS)} min"
    elif distance < _DAY_MS - _HOUR_MS:
        hours, minutes = divmod(round(distance / _MINUTE_MS), 60)
        span = f"{hours} h {minutes} min" if minutes else f"{hours} h"
    else:
        days, hours = divmod(round(distance / _HOUR_MS), 24)
        span = f"{days} d {hours} h" if hours else f"{days} d"
    return f"in {span}" if ms > 0 else f"{span} ago"


def problem_sentence(problem: Mapping[str, Any]) -> str:
    """A problem document of the API as one sentence, in the terms of the command line."""
    detail = str(problem.get("detail") or problem.get("title") or f"HTTP status {problem.get('status')}")
    field = problem.get("field")
    if field and detail.startswith(f"{field} "):
        detail = f"{_OPTIONS.get(field, f'--{field}')} {detail.removeprefix(f'{field} ')}"
    elif problem.get("code") == "invalid-token":
        detail = f"{problem['title']}: {detail}"
    parts = [detail, str(problem.get("fix") or "")]
    if problem.get("moved_to"):
        parts.append(f"Its token is {problem['moved_to']}")
    return " ".join(part if part.endswith((".", "!", "?")) else f"{part}." for part in parts if part).rstrip(".")


def print_steps(steps: Iterable[Step]) -> None:
    """What bootstrap did."""
    for step in steps:
        style = {"created": "green", "updated": "yellow"}.get(step.outcome, "dim")
        detail = f"  {step.detail}" if step.detail else ""
        print_line((f"{step.outcome:<9}", style), step.resource, (detail, "dim"))


def clock_time(at_ms: int) -> str:
    """Local time of day to the millisecond."""
    moment = dt.datetime.fromtimestamp(at_ms / 1000, tz=dt.UTC).astimezone()
    return moment.strftime("%H:%M:%S.") + f"{at_ms % 1000:03d}"


def print_arrival(arrived: Arrived) -> None:
    """One message: when it arrived, where, how late, and what it is."""
    late = arrived.late_ms
    if late is None:
        lateness, style = "not a job", "dim"
    else:
        lateness = f"{late:+d} ms"
        style = "green" if late <= _ON_TIME_MS else "yellow" if late <= _ABOUT_A_SECOND_MS else "red"
    print_line(
        (clock_time(arrived.at_ms), "dim"),
        f"  {arrived.queue}  ",
        (f"{lateness:>10}", style),
        (f"  {_cut(arrived.name or '-', _NAME_CHARS):<22}", "bold"),
        f" {_cut(arrived.body, _BODY_CHARS)}",
    )


def _cut(text: str, chars_max: int) -> str:
    """Its beginning, with its lines on one; an escape counts as what it is shown as."""
    shown = flattened(" ".join(text[: 2 * chars_max].splitlines()))
    return shown if len(shown) <= chars_max and len(text) <= 2 * chars_max else shown[: chars_max - 1] + "…"


def print_audit(report: Report) -> None:
    """An audit's result."""
    for finding in report.findings:
        due = dt.datetime.fromtimestamp(finding.due_at_ms / 1000, tz=dt.UTC).isoformat(" ", "milliseconds")
        kind = f"{finding.kind}, repaired" if finding.repaired else finding.kind
        style = "green" if finding.repaired else "yellow"
        print_line(
            (f"{kind:<19}", style),
            f"  due {due.removesuffix('+00:00')} UTC  shard {finding.shard:<4}  bucket {finding.bucket}  ",
            (finding.token or "-", "dim"),
        )
    more = sum(report.counts.values()) - len(report.findings)
    if more:
        print_line(f"and {more} more")
    counts = ", ".join(f"{count} {kind}" for kind, count in report.counts.items())
    read = f"{_many(report.triggers, 'trigger')} and {_many(report.tombstones, 'tombstone')}"
    read = f"{read} in {_many(report.buckets, 'bucket')}"
    print_line(("clean", "green") if report.clean else ("not clean", "red"), f": {counts} of {read}")


def print_export_audit(report: ExportReport) -> None:
    """The audit of an export, and what was pending in it."""
    print_line((f"as of {_utc(report.at_ms)} UTC", "dim"))
    width = max((len(pending.queue) for pending in report.pending), default=0)
    for pending in report.pending:
        print_line((f"{pending.day}  ", "dim"), f"{pending.queue:<{width}}  {pending.jobs:>12,}")
    print_audit(report.audit)


def print_restore(report: RestoreReport) -> None:
    """What became of the jobs chosen."""
    for outcome, jobs in sorted(report.outcomes.items()):
        print_line(f"{jobs:>12,}  {outcome}")
    style = "green" if report.complete else "red"
    sent = ", of which nothing was sent (--dry-run)" if report.dry_run else ""
    print_line(
        ("complete" if report.complete else "incomplete", style), f": {_many(report.chosen, 'job')} chosen{sent}"
    )


_LEDGER_COLUMNS = ("accepted", "moved in", "moved out", "delivered", "cancelled", "dead-lettered", "balance")


def print_ledger(rows: Sequence[Row], *, gap_jobs: int, surplus_jobs: int) -> None:
    """The ledger: a line for each window, and the balance of the closed ones."""
    if not rows:
        print_line("no jobs were counted in these hours")
        return
    print_line((f"{'due (UTC)':<24}" + "".join(f"{name:>14}" for name in _LEDGER_COLUMNS), "dim"))
    for row in rows:
        due = f"{_utc(row.start_ms)} - {_utc(row.end_ms)[11:]}"
        print_line(f"{due:<24}" + "".join(f"{jobs:>14,}" for jobs in row.counts), _balance(row))
    closed = sum(row.closed for row in rows)
    balanced = gap_jobs == 0 and surplus_jobs == 0
    style = "green" if balanced else "red" if gap_jobs else "yellow"
    balance = "balanced" if balanced else f"{_many(gap_jobs, 'job')} missing, {surplus_jobs} too many"
    print_line((balance, style), f" in {_many(closed, 'closed window')}")


def _balance(row: Row) -> tuple[str, str]:
    pending = row.counts.pending
    if not row.closed:
        return f"{f'{pending:,} open':>14}", "dim"
    if pending > 0:
        return f"{f'{pending:,} missing':>14}", "red"
    return (f"{f'{-pending:,} too many':>14}", "yellow") if pending else (f"{'0':>14}", "green")


def _utc(at_ms: int) -> str:
    return dt.datetime.fromtimestamp(at_ms / 1000, tz=dt.UTC).strftime("%Y-%m-%d %H:%M:%S").removesuffix(":00")


_STOPPED = {
    "empty": "",
    "came_round": "",
    "max": ". Stopped at --max: there may be more, run it again",
    "held_max": ". Stopped: too many dead letters that are not selected; redrive those first",
}


def print_redrive(report: redrive.Report) -> None:
    """A redrive's result."""
    for reason, count in report.failed.items():
        print_line((f"{count} stay", "yellow"), f"  {reason}")
    if report.examined == 0:
        print_line("nothing to redrive: the dead-letter queue is empty")
        return
    skipped = f", {report.skipped} not selected" if report.skipped else ""
    failed = sum(report.failed.values())
    print_line(f"{report.redriven} redriven, {failed} failed{skipped}{_STOPPED[report.stopped]}")


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def _plain(value: object) -> str:
    match value:
        case None:
            return "unset"
        case bool():
            return "yes" if value else "no"
        case "":
            return '""'
        case _:
            return str(value)
