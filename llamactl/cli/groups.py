"""Command groups that load a command's module only when that command runs.

The services behind the commands take longer to import than ``llamactl --help`` may take.
"""

from __future__ import annotations

import difflib
import gc
import importlib
import sys
from collections.abc import Mapping
from typing import Any

import click

from llamactl import __version__

COMMANDS: Mapping[str, tuple[str, str]] = {
    "serve": ("llamactl.cli.serve:serve", "Run the server; what llamactl does without a command."),
    "download": ("llamactl.cli.download:download", "Download a model, with or without a server."),
    "models": ("llamactl.cli.models:models", "List, check and delete cached models."),
    "jobs": ("llamactl.cli.joblist:jobs", "List and control downloads and checks."),
    "settings": ("llamactl.cli.limits:settings", "Show or change what limits the downloads."),
    "instances": ("llamactl.cli.instances:instances", "List and control instances."),
    "keys": ("llamactl.cli.keys:keys", "List, make and delete inference keys."),
    "doctor": ("llamactl.cli.doctor:doctor", "Check what llamactl needs, one line each."),
}

#: The words of other programs of the field, and ours for the same.
ELSEWHERE: Mapping[str, str] = {
    "create": "instances create",
    "list": "models",
    "logs": "instances logs",
    "ls": "models",
    "ps": "instances",
    "pull": "download",
    "rm": "models rm",
    "run": "instances create NAME --model ORG/NAME:TAG --start",
    "search": "models search",
    "show": "models show",
    "start": "serve",
    "stop": "instances stop",
}


class DefaultGroup(click.Group):
    """A group that runs its command ``default`` when none is named."""

    default = "list"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {name for option in self.params for name in option.opts}
        own.update(self.get_help_option_names(ctx))
        if not args or (args[0].startswith("-") and args[0] not in own):
            args = [self.default, *args]
        return super().parse_args(ctx, args)


class LazyGroup(DefaultGroup):
    """The commands of ``COMMANDS``; their help lines stand in the table, not in the modules."""

    default = "serve"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        if module not in sys.modules:
            _import_for_good(module)
        command: Any = getattr(sys.modules[module], attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] in ELSEWHERE:
            ctx.fail(f"No such command '{args[0]}'; here it is: llamactl {ELSEWHERE[args[0]]}")
        close = difflib.get_close_matches(args[0], COMMANDS, 1)
        if close and args[0] not in COMMANDS:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{close[0]}'?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


def _import_for_good(module: str) -> None:
    """Import what stays to the end: looking for garbage in it takes a sixth of a start."""
    gc.disable()
    try:
        importlib.import_module(module)
        gc.freeze()
    finally:
        gc.enable()


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llamactl", message="%(prog)s %(version)s")
def root() -> None:
    """Turn a model's name into a running, reachable llama.cpp model.

    Without a command the server runs: `llamactl --port 8081` is `llamactl serve --port 8081`.
    """
