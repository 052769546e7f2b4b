"""What of an instance's variables and of its command line is not shown. Pure.

Variables come back as they were shown; a command line is only ever shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from llamactl.errors import InvalidRequest
from llamactl.instances.options import Options
from llamactl.secret import MASK

_SECRET_NAME = re.compile(
    r"(.*_)?(API_?KEY|KEY|PASS|CREDENTIALS?|AUTH|AUTHORIZATION|COOKIE)(_(ID|VALUE|\d+))?"
    r"|.*(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE)(_(ID|VALUE|\d+))?|.+_(PWD|PAT)",
    re.IGNORECASE,
)
#: Tokens by their beginnings, private keys, and addresses with a login in them.
_SECRET_VALUE = re.compile(
    r"(hf|sk|gh[a-z]|github_pat|glpat|xox[a-z])[_-][\w-]{8,}.*|eyJ[\w-]+\.[\w-]+\..*"
    r"|(Bearer|Basic) .+|.*PRIVATE KEY-----.*|.*://[^/@\s]+@.*",
    re.S,
)
#: Flags of llama-server whose value opens something.
_SECRET_FLAG = re.compile(
    r"-{1,2}([\w-]*[-_])?(key|token|secret|password|hft)|--mcp-servers-json", re.IGNORECASE
)
_LOGIN = re.compile(r"(?<=://)[^/@\s]+(?=@)")


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


def masked_words(words: Sequence[str]) -> list[str]:
    """A command line without the values that open something."""
    shown: list[str] = []
    for argument in words:
        name, equals, _ = argument.partition("=")
        if shown and _SECRET_FLAG.fullmatch(shown[-1]):
            shown.append(MASK)
        elif equals and _SECRET_FLAG.fullmatch(name):
            shown.append(f"{name}={MASK}")
        else:
            shown.append(_LOGIN.sub(MASK, argument))
    return shown


def _looks_secret(name: str, value: str) -> bool:
    return bool(value and (_SECRET_NAME.fullmatch(name) or _SECRET_VALUE.fullmatch(value)))
