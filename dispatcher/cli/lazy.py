"""Commands whose modules are imported when they are typed: the list of commands is shown without them."""

from importlib import import_module
from typing import Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup


class Definition(NamedTuple):
    """Where a command is defined, and its line in the list of commands."""

    module: str
    name: str
    """Of a Typer app, or of the function that is the command."""
    help: str


class LazyCommand(TyperCommand):
    """Stands for a command until it is typed."""

    def __init__(self, name: str, definition: Definition) -> None:
        super().__init__(name, help=definition.help)
        self._definition = definition

    def load(self) -> Any:
        """The command itself."""
        app = getattr(import_module(self._definition.module), self._definition.name)
        if not isinstance(app, typer.Typer):
            alone = typer.Typer(add_completion=False)
            alone.command(self.name)(app)
            app = alone
        return typer.main.get_command(app)

    def make_context(self, *args: Any, **named: Any) -> Any:
        """Of the command itself, which is invoked then."""
        return self.load().make_context(*args, **named)


def lazy_group(definitions: dict[str, Definition]) -> type[TyperGroup]:
    """A group with these commands, by name, in this order."""

    class Group(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(definitions)

        def get_command(self, ctx: Any, cmd_name: str) -> LazyCommand | None:
            return LazyCommand(cmd_name, definitions[cmd_name]) if cmd_name in definitions else None

    return Group
