"""Which options need the administrator's consent in the configuration. Pure.

A management key may run models. That it is not a shell as well depends on what is asked here:
llama-server has flags that read and write files, run commands and open networks, and variables
that load libraries.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llamactl.config import SecurityConfig
from llamactl.errors import InvalidRequest
from llamactl.instances.flags import DANGEROUS, RESERVED, lookup

if TYPE_CHECKING:
    from llamactl.instances.options import Options

#: Variables that llamactl sets itself, whatever the configuration says.
_OURS = re.compile(r"LLAMACTL_.*|LLAMA_API_KEY|LLAMA_SERVER_.*|LLAMA_ARG_(HOST|PORT|API_.*|SSL_.*)")
_DANGEROUS_VARIABLES = re.compile(
    r"LD_.*|DYLD_.*|PATH|HOME|SHELL|IFS|ENV|BASH_ENV|PYTHON.*|PERL.*|RUBY.*|NODE_OPTIONS"
    r"|GGML_BACKEND_PATH|GGML_BACKEND_DIR|LLAMA_.*|HF_.*|HUGGING.*|MODEL_ENDPOINT|AIP_.*"
    r"|.*_PROXY|SSL_CERT_.*|CURL_.*|OPENSSL_.*|GCONV_PATH|LOCPATH|NLSPATH|MALLOC_.*|TMPDIR"
    r"|XDG_.*|SSH_.*|DOCKER_.*",
    re.IGNORECASE,
)


def check_permitted(options: Options, security: SecurityConfig) -> None:
    """Raise ``InvalidRequest`` for the first option that the configuration does not allow."""
    if options.command_override and not security.allow_command_override:
        raise InvalidRequest(
            "command_override runs any program of this machine, and is not allowed",
            hint="Set security.allow_command_override in the configuration to allow it.",
            field="command_override",
        )
    for name, where in _flags(options):
        if name in DANGEROUS and not security.allow_dangerous_flags:
            raise InvalidRequest(
                f"{where}: --{name} reaches files, programs or networks beyond the model",
                hint="Set security.allow_dangerous_flags in the configuration to allow it.",
                field=where,
            )
    for name in options.environment:
        _check_variable(name, security)
    if options.preset_ini:
        _check_preset(options.preset_ini, security)


def _flags(options: Options) -> Iterator[tuple[str, str]]:
    for key in options.backend_options:
        yield key.replace("_", "-"), f"backend_options.{key}"
    for name in options.extra_args:
        yield name.lstrip("-"), f"backend_options.extra_args.{name}"


def _check_variable(name: str, security: SecurityConfig) -> None:
    where = f"environment.{name}"
    if _OURS.fullmatch(name):
        raise InvalidRequest(f"{where} is set by llamactl itself", field=where)
    if _DANGEROUS_VARIABLES.fullmatch(name) and not security.allow_dangerous_environment:
        raise InvalidRequest(
            f"{where} can change which program or which data is used",
            hint="Set security.allow_dangerous_environment in the configuration to allow it.",
            field=where,
        )


def _check_preset(preset: str, security: SecurityConfig) -> None:
    """A preset's keys are flags under three kinds of names; each is held to the same rules."""
    for number, line in enumerate(preset.splitlines(), start=1):
        key = line.split("=", 1)[0].strip()
        if not key or key[0] in "#;[" or "=" not in line:
            continue
        where = f"preset_ini line {number}"
        found = lookup(key)
        name = found[0].name if found else key.lstrip("-").replace("_", "-").lower()
        if name in RESERVED and name != "version":  # the preset's own, of its format
            raise InvalidRequest(f"{where}: {RESERVED[name]}", field="preset_ini")
        if security.allow_dangerous_flags:
            continue
        if name in DANGEROUS or key.upper().startswith(("LLAMA_", "HF_", "MTMD_")):
            raise InvalidRequest(
                f"{where}: {key} reaches files, programs or networks beyond the model",
                hint="Write flags by their names, or set security.allow_dangerous_flags in the "
                "configuration.",
                field="preset_ini",
            )
