"""``secchi discover``."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.cli import Settings
    from pipelines.collect.snmp_discovery import FoundAgent


@click.command()
@click.argument("ranges", nargs=-1, required=True)
@click.option("--port", default=161, show_default=True, help="UDP port of the agents.")
@click.option("--auth", "auths", multiple=True, help="Credentials of [snmp.auths] to try; else all, by their order.")
@click.option("--timeout", default=1.0, show_default=True, help="Seconds to wait for each answer.")
@click.option(
    "--write",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the agents that are not configured yet to a new CSV file for snmp.target_files.",
)
@click.pass_obj
def command(
    settings: "Settings", ranges: tuple[str, ...], port: int, auths: tuple[str, ...], timeout: float, write: Path | None
) -> None:
    """Find SNMP agents in ranges of addresses.

    A range is an address, 192.0.2.0/24 or 192.0.2.10-192.0.2.99. Every address is asked once with each of the
    credentials until one is answered; nothing else is sent, and nothing is collected.
    """
    import asyncio

    from pipelines.collect.snmp_discovery import addresses, discover
    from pipelines.commands.check import check_secrets
    from pipelines.printing import print_rows
    from resources.errors import ConfigurationError

    config = settings.load()
    check_secrets(config)
    if write and write.exists():
        raise ConfigurationError(f"--write {write}: is there already; name a new file")
    hosts = addresses(ranges)
    found = asyncio.run(discover(config.snmp, hosts, port, auths or tuple(config.snmp.auths), timeout))
    known = {(target.host, target.port) for target in config.snmp.targets}
    new = [agent for agent in found if (agent.host, agent.port) not in known]
    rows = [
        (a.host, a.auth, a.name, a.object_id, ", ".join(a.modules), a.description, "no" if a in new else "yes")
        for a in found
    ]
    if rows:
        print_rows(("address", "auth", "name", "sysObjectID", "modules", "description", "configured"), rows, "table")
    click.echo(f"{len(hosts)} addresses asked, {len(found)} agents found, {len(new)} of them not configured.")
    if write and new:
        _write(write, new)
        click.echo(f"{write}: written; name it in snmp.target_files.")


def _write(path: Path, agents: "list[FoundAgent]") -> None:
    """``auto`` chooses the modules again at each start: what stands at an address may change."""
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("host", "port", "auth", "modules"))
        writer.writerows((agent.host, agent.port, agent.auth, "auto") for agent in agents)
