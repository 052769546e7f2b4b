"""The command line: parse, call a service or a running server, print.

Results go to standard output, progress and messages to standard error. Exit codes: 0 done, 1 the
work failed, 2 bad usage or bad configuration, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from llamactl.cli.groups import root
from llamactl.cli.output import say
from llamactl.errors import ConfigError, InvalidRequest, LlamactlError

FAILED = 1
BAD_USAGE = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and leave the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: Sequence[str]) -> int:
    """Run one command; whatever a user can cause becomes a sentence and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that lacks a character of a file's name gets an escape, not a traceback.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = root.main(args=list(arguments), prog_name="llamactl", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (ConfigError, InvalidRequest) as error:
        say(error.details)
        return BAD_USAGE
    except LlamactlError as error:
        say(error.details)
        return FAILED
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left; without this the interpreter complains once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        remedy = ""
        if isinstance(error, PermissionError):
            remedy = ". Check the owner and the permissions, or set data_dir to another place."
        say(f"{error.strerror or error}{where}{remedy}")
        return FAILED
