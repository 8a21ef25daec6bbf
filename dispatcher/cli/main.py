"""The command `dispatcher`. Exit codes: 0 done, 1 failed, 2 wrong usage."""

import logging
import signal
import sys

import typer

from dispatcher import __version__
from dispatcher.cli.console import err, out
from dispatcher.cli.lazy import Definition, lazy_group
from dispatcher.domain.errors import DispatcherError, UsageError

COMMANDS = {
    "demo": Definition(
        "dispatcher.cli.demo",
        "demo",
        "Dial 2,000 records of every kind of trouble against a simulated provider, and prove the result.",
    ),
    "explain": Definition(
        "dispatcher.cli.explain",
        "explain",
        "Tell the whole story of one number in a campaign: what happened, why, what comes next.",
    ),
    "export": Definition(
        "dispatcher.cli.export",
        "export",
        "Write every destination of a campaign with its state and result, in the order it was loaded.",
    ),
    "doctor": Definition(
        "dispatcher.cli.doctor",
        "doctor",
        "Look at servers, settings, clock and credentials; exits 1 when something is wrong, and says what to do.",
    ),
    "simulator": Definition(
        "dispatcher.cli.simulator",
        "simulator",
        "Play a provider until Ctrl-C. The last two digits of a number say what happens to it; nobody is rung.",
    ),
    "up": Definition("dispatcher.cli.stack", "up", "Start the dispatcher on this machine: web, workers, beat, flower."),
    "down": Definition("dispatcher.cli.stack", "down", "Stop what `up` started; calls on the wire are finished first."),
    "migrate": Definition("dispatcher.cli.database", "migrate", "Bring the database to the schema of this version."),
    "verify": Definition("dispatcher.cli.database", "verify", "Check every invariant; exits 1 when one does not hold."),
    "version": Definition("dispatcher.cli.main", "version", "Print the version."),
    "account": Definition("dispatcher.cli.accounts", "app", "Provider accounts."),
    "campaign": Definition("dispatcher.cli.campaigns", "app", "Campaigns: create, load, start, watch."),
    "dnc": Definition("dispatcher.cli.dnc", "app", "Do-not-call lists."),
    "provider": Definition("dispatcher.cli.providers", "app", "Providers: what they say, and what they can do."),
}
app = typer.Typer(
    cls=lazy_group(COMMANDS),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Dials voice and text campaigns: screened, paced, retried, and never twice by a fault.",
)


@app.callback()
def _root() -> None: ...


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
