"""dispatcher dnc …"""

from typing import Annotated

import typer

from dispatcher.cli.session import call
from dispatcher.cli.show import as_json, entry_document, listing, out
from dispatcher.flow import control

app = typer.Typer(no_args_is_help=True, help="Do-not-call lists.")
Region = Annotated[str, typer.Option(help="Completes numbers without a country code.")]
List = Annotated[str, typer.Option("--list", help="Which list.")]


@app.command()
def add(
    numbers: list[str],
    list_name: List = "default",
    source: Annotated[str, typer.Option(help="Who said so; kept for ever.")] = "operator",
    region: Region = "US",
) -> None:
    """Never ring these numbers again, from the next permit on."""
    report = call(lambda services: control.dnc_add(numbers, region, list_name, source, services))
    out.print(f"{report.added} added to '{list_name}', {report.moved} waiting destinations are DNC now")
    for key in report.still_out:
        out.print(f"a call to one of them is out and cannot be taken back: attempt {key}")


@app.command()
def remove(numbers: list[str], list_name: List = "default", region: Region = "US") -> None:
    """Take numbers off a list; what the list held before stays on record."""
    e164 = control.read_numbers(numbers, region)
    removed = call(lambda services: services.store.dnc_remove(e164, list_name))
    out.print(f"{removed} removed from '{list_name}'")


@app.command()
def check(number: str, region: Region = "US", json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """Show the lists that forbid a number; exits 1 when there is one."""
    (e164,) = control.read_numbers([number], region)
    entries = call(lambda services: services.store.dnc_check(e164))
    if json:
        as_json([entry_document(e) for e in entries])
    elif entries:
        rows = [[e.list, e.scope, e.channel, e.source, f"{e.effective_at:%Y-%m-%d %H:%M:%S %Z}"] for e in entries]
        out.print(listing(["list", "scope", "channel", "source", "since"], rows))
    else:
        out.print("on no list")
    if entries:
        raise typer.Exit(1)
