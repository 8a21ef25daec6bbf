"""dispatcher migrate, dispatcher verify."""

from typing import Annotated

import typer

from dispatcher.bootstrap import Urls, configured_urls
from dispatcher.bootstrap import migrate as migrate_database
from dispatcher.cli.console import as_json, out
from dispatcher.cli.session import call, settings
from dispatcher.cli.show import violations
from dispatcher.embedded import Embedded


def migrate() -> None:
    """Bring the database to the schema of this version."""
    chosen = settings()
    if urls := configured_urls(chosen):
        before, after = migrate_database(urls)
    else:
        with Embedded(chosen.data_folder).borrowed() as servers:
            before, after = migrate_database(Urls(servers.database_url, servers.redis_url))
    out.print(f"the schema is {after} already" if before == after else f"schema {before or '(empty)'} -> {after}")


def verify(json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check every invariant; exits 1 when one does not hold."""
    found = call(lambda services: services.store.verify())
    if json:
        as_json([{"invariant": v.invariant, "culprit": v.culprit} for v in found])
    elif found:
        out.print(violations(found))
    else:
        out.print("every invariant holds")
    if found:
        raise typer.Exit(1)
