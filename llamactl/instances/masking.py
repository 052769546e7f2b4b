"""Variables of an instance whose values are not shown, and come back as they were shown. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from llamactl.errors import InvalidRequest
from llamactl.instances.options import Options
from llamactl.secret import MASK

_SECRET_NAME = re.compile(
    r"(.*_)?(API_?KEY|KEY|TOKEN|SECRET|PASS|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH|COOKIE)"
    r"(_(ID|VALUE|\d+))?",
    re.IGNORECASE,
)
#: Tokens by their beginnings, and addresses with a login in them.
_SECRET_VALUE = re.compile(r"(hf|sk|ghp|gho|glpat|xox[a-z])[_-][\w-]{8,}.*|.*://[^/@\s]+@.*", re.S)


def masked(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables, those that look like secrets without their values."""
    return {
        name: MASK if _looks_secret(name, value) else value for name, value in environment.items()
    }


def unmasked(options: Options, before: Options | None) -> Options:
    """The options with the values that their masks stand for, which are those of ``before``.

    Raises ``InvalidRequest`` for a mask that stands for nothing.
    """
    known = before.environment if before is not None else {}
    environment = dict(options.environment)
    for name, value in environment.items():
        if value != MASK:
            continue
        if name not in known:
            raise InvalidRequest(
                f"environment.{name} is masked, as an answer shows it, and has no value yet",
                hint="Write the value in its place.",
                field=f"environment.{name}",
            )
        environment[name] = known[name]
    return replace(options, environment=environment)


def _looks_secret(name: str, value: str) -> bool:
    return bool(value and (_SECRET_NAME.fullmatch(name) or _SECRET_VALUE.fullmatch(value)))
