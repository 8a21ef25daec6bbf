"""The command `dispatcher`. Exit codes: 0 done, 1 failed, 2 wrong usage."""

import logging
import signal
import sys
from typing import Annotated

import typer

from dispatcher import __version__
from dispatcher.bootstrap import Urls, configured_urls
from dispatcher.bootstrap import migrate as migrate_database
from dispatcher.cli import accounts, campaigns, dnc, explain, export, providers, stack
from dispatcher.cli.demo import demo
from dispatcher.cli.doctor import doctor
from dispatcher.cli.session import call, settings
from dispatcher.cli.show import as_json, err, out, violations
from dispatcher.cli.simulator import simulator
from dispatcher.domain.errors import DispatcherError, UsageError
from dispatcher.embedded import Embedded

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Dials voice and text campaigns: screened, paced, retried, and never twice by a fault.",
)
app.add_typer(accounts.app, name="account")
app.add_typer(campaigns.app, name="campaign")
app.add_typer(dnc.app, name="dnc")
app.add_typer(providers.app, name="provider")
app.command()(demo)
app.command()(explain.explain)
app.command()(export.export)
app.command()(doctor)
app.command()(simulator)
app.command()(stack.up)
app.command()(stack.down)


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version."""
    chosen = settings()
    if urls := configured_urls(chosen):
        before, after = migrate_database(urls)
    else:
        with Embedded(chosen.data_folder).borrowed() as servers:
            before, after = migrate_database(Urls(servers.database_url, servers.redis_url))
    out.print(f"the schema is {after} already" if before == after else f"schema {before or '(empty)'} -> {after}")


@app.command()
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


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)


_CTRL_C = 130
"""What typer makes of it."""


def main() -> None:
    """Run a command; a person sees our errors as one line and never a traceback."""
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # it tells again what our error will say
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    try:
        app(prog_name="dispatcher")
    except UsageError as error:
        _fail(error, 2)
    except DispatcherError as error:
        _fail(error, 1)
    except SystemExit as ended:
        if ended.code == _CTRL_C:
            err.print("stopped; what was not finished has left nothing")
        raise


def _fail(error: DispatcherError, code: int) -> None:
    err.print(f"error: {error}", markup=False, soft_wrap=True)
    sys.exit(code)
