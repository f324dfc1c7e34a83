"""``secchi status``."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.config import Config
    from pipelines.context import Context

_STALE = 10.0  # seconds; the collectors write their status every second
_SHOWN_TARGETS = 20
_SHOWN_TOPICS = 5
_SHOWN_FIELDS = 20
_Row = tuple[Any, ...]


@click.command()
@click.pass_obj
def command(settings: "Settings") -> None:
    """Show collectors, landing, backlog and quarantine."""
    config = settings.load()
    _print_collectors(config)
    _print_landing(config)
    if (config.lakehouse.path / "catalog.db").exists():
        context = settings.open()
        _print_tables(context)
        _print_unread(context)
        _print_fields(context)
        _print_quarantine(context)
    else:
        click.echo(f"Nothing is stored yet in {config.lakehouse.path.absolute()}.")


def _print_collectors(config: "Config") -> None:
    from pipelines.collect.instances import instances

    for instance in instances(config.lakehouse.path):
        _print_instance(f"Collectors {instance.name}".rstrip(), _read(instance.status_path))


def _print_instance(title: str, status: Mapping[str, Any]) -> None:
    from pipelines.printing import print_rows

    click.echo(f"{title}: {_liveness(status)}.")
    is_running = bool(status) and _is_alive(int(status["pid"]))
    rows = [*_mqtt_rows(status.get("mqtt", {}), is_running), *_snmp_rows(status.get("snmp", {}), is_running)]
    rows += _trap_rows(status.get("snmp_traps", {}), is_running)
    if rows:
        print_rows(("collects from", "state", "received", "durable", "failures", "last error"), rows, "table")
    for source, landing in status.get("landing", {}).items():
        if not landing.get("writable", True):
            click.echo(f"Landing of {source} takes no records now: nothing is acknowledged until it does.")


def _read(path: Path) -> dict[str, Any]:
    try:
        status = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}


def _liveness(status: Mapping[str, Any]) -> str:
    from pipelines.printing import age

    if not status:
        return "never ran here"
    silent = max((datetime.now(UTC) - datetime.fromisoformat(status["updated_at"])).total_seconds(), 0)
    if not _is_alive(int(status["pid"])):
        return f"not running; they stopped {age(silent)} ago"
    running = f"running (pid {status['pid']}, since {status['started_at'][:19]}Z)"
    return f"{running}, but silent for {age(silent)}" if silent > _STALE else running


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # it is another user's
    return True


def _mqtt_rows(brokers: Mapping[str, Any], is_running: bool) -> list[_Row]:
    return [
        (
            f"mqtt {name}",
            ("connected" if broker["connected"] else "down") if is_running else "stopped",
            broker["received"],
            broker["durable"],
            f"{broker['reconnects']} reconnects",
            broker["last_error"],
        )
        for name, broker in brokers.items()
    ]


def _snmp_rows(targets: Mapping[str, Any], is_running: bool) -> list[_Row]:
    """The failing targets before the others; of thousands of targets, the others in one row."""
    names = sorted(targets, key=lambda name: not targets[name]["failing"])
    shown = names if len(names) <= _SHOWN_TARGETS else names[:_SHOWN_TARGETS]
    rows: list[_Row] = [
        (
            f"snmp {name}",
            _target_state(targets[name]) if is_running else "stopped",
            targets[name]["varbinds"],
            None,
            f"{targets[name]['failed']} of {targets[name]['polls']} polls, {targets[name]['timeouts']} timeouts",
            targets[name]["last_error"],
        )
        for name in shown
    ]
    rest = [targets[name] for name in names[len(shown) :]]
    if rest:
        failing, failed, polls, timeouts, varbinds = (
            sum(bool(target["failing"]) for target in rest),
            *(sum(target[counter] for target in rest) for counter in ("failed", "polls", "timeouts", "varbinds")),
        )
        state = f"{failing} down" if is_running else "stopped"
        told = f"{failed} of {polls} polls, {timeouts} timeouts"
        rows.append((f"snmp, {len(rest)} more targets", state, varbinds, None, told, None))
    return rows


def _trap_rows(traps: Mapping[str, Any], is_running: bool) -> list[_Row]:
    if not traps:
        return []
    state = ("down" if traps["last_error"] else "listening") if is_running else "stopped"
    dropped = [(why, traps[f"dropped_{why}"]) for why in ("source", "rate", "full", "kernel")]
    failures = ", ".join(f"{count} dropped ({why})" for why, count in dropped if count) or "0 dropped"
    return [
        (f"snmp traps {traps['listener']}", state, traps["received"], traps["landed"], failures, traps["last_error"])
    ]


def _target_state(target: Mapping[str, Any]) -> str:
    if target["failing"]:
        return f"down: {', '.join(target['failing'])}"
    return "up" if target["polls"] else "not polled yet"


def _print_landing(config: "Config") -> None:
    from pipelines.printing import print_rows, size
    from resources.landing import sealed_segments

    root = config.landing_path
    sources = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    rows = []
    for source in sources:
        segments = sealed_segments(root, source)
        rows.append((source, len(segments), size(sum(segment.size for segment in segments))))
    if rows:
        print_rows(("landing", "sealed segments", "bytes"), rows, "table")


def _print_tables(context: "Context") -> None:
    from pipelines.printing import age, print_rows
    from pipelines.standing import backlog, extents

    behind, now = backlog(context), context.clock()
    rows = [
        (
            extent.table,
            extent.rows,
            f"{age(max((now - extent.committed_at).total_seconds(), 0))} ago" if extent.committed_at else "never",
            behind[extent.table] or "no",
        )
        for extent in extents(context)
        if extent.table in behind
    ]
    print_rows(("table", "rows", "last commit", "behind"), rows, "table")


def _print_unread(context: "Context") -> None:
    from pipelines.printing import counted
    from pipelines.unread_topics import unread_messages
    from resources.terminal import printable

    unread = unread_messages(context)
    if unread:
        topics = ", ".join(f"{printable(topic)} ({count})" for topic, count in list(unread.items())[:_SHOWN_TOPICS])
        more = f" and {len(unread) - _SHOWN_TOPICS} more" if len(unread) > _SHOWN_TOPICS else ""
        click.echo(
            f"No silver table reads {counted(sum(unread.values()), 'message')} of the last 24 hours in "
            f"bronze.mqtt_messages: {topics}{more}; tell what they hold in [[decode]]."
        )


def _print_fields(context: "Context") -> None:
    """The unknown fields that were seen, the newest first."""
    from assets.ops.fields import fields
    from pipelines.printing import print_rows
    from resources.terminal import printable

    if not context.lakehouse.exists(fields.stored):
        return
    seen = context.lakehouse.read(fields.stored).sort("seen_at", "path", descending=[True, False])
    rows = [
        (table, printable(path), kind, printable(example), context.mode_of(context.tables[table]))
        for table, path, kind, example in seen.select("table_name", "path", "kind", "example").rows()[:_SHOWN_FIELDS]
        if table in context.tables
    ]
    if rows:
        print_rows(("unknown fields of", "field", "kind", "example", "now"), rows, "table")
    if seen.height > _SHOWN_FIELDS:
        click.echo(f"And {seen.height - _SHOWN_FIELDS} more in ops.fields.")


def _print_quarantine(context: "Context") -> None:
    from pipelines.printing import print_rows
    from pipelines.waiting import counts, waiting_records

    waiting = counts(waiting_records(context)).select("stage", "reason", "records")
    if waiting.is_empty():
        click.echo("Nothing waits in quarantine.")
    else:
        print_rows(("quarantined by", "reason", "records"), waiting.rows(), "table")
