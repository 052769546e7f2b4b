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
from llamactl.instances.preset import preset_lines

if TYPE_CHECKING:
    from llamactl.instances.options import Options
    from llamactl.instances.values import Value

#: Variables that llamactl sets itself, whatever the configuration says.
_OURS = re.compile(r"LLAMACTL_.*|LLAMA_API_KEY|LLAMA_SERVER_.*|LLAMA_ARG_(HOST|PORT|API_.*|SSL_.*)")
_DANGEROUS_VARIABLES = re.compile(
    r"LD_.*|DYLD_.*|PATH|HOME|SHELL|IFS|ENV|BASH_ENV|PYTHON.*|PERL.*|RUBY.*|NODE_OPTIONS"
    r"|GGML_BACKEND_PATH|GGML_BACKEND_DIR|LLAMA_.*|HF_.*|HUGGING.*|MODEL_ENDPOINT|AIP_.*"
    r"|.*_PROXY|SSL_CERT_.*|CURL_.*|OPENSSL_.*|GCONV_PATH|LOCPATH|NLSPATH|MALLOC_.*|TMPDIR"
    r"|XDG_.*|SSH_.*|DOCKER_.*|TMP|TEMP"
    # What a shell runs when it is started, should the program be a script.
    r"|SHELLOPTS|BASHOPTS|BASH_.*|PS4"
    # Libraries that the drivers and run-time systems of GPUs load because a variable names them.
    r"|.*INJECTION.*|.*PLUGIN.*|.*_LIBS?|.*_LIBRAR(Y|IES)|.*_LIBRARY_PATH|.*_DRIVERS_PATH"
    r"|VK_.*(PATH|FILES|FILENAMES)|OCL_ICD_.*|OPENCL_(VENDOR_PATH|LAYERS)|ZE_ENABLE_ALT_DRIVERS"
    r"|UR_ADAPTERS.*|GGML_METAL_PATH_RESOURCES|GLIBC_TUNABLES|HOSTALIASES",
    re.IGNORECASE,
)

#: Words in the names of flags that this table does not have, such as a newer build's, which say
#: that they reach further than the model.
_REACHING = re.compile(
    r"(.*-)?(agent|dir|docker|exec|file|mcp|path|preset|rpc|save|ssl|tools|url)(-.*)?",
    re.IGNORECASE,
)

#: llama-server shows the text of these files in its properties or its log: without consent they
#: must at least be called like what they are meant to be, and not like somebody's secrets.
SHOWN_FILES = {
    "chat-template-file": (".jinja", ".jinja2", ".j2", ".tmpl"),
    "grammar-file": (".gbnf",),
    "json-schema-file": (".json",),
}


def check_permitted(options: Options, security: SecurityConfig) -> None:
    """Raise ``InvalidRequest`` for the first option that the configuration does not allow."""
    if options.command_override and not security.allow_command_override:
        raise InvalidRequest(
            "command_override runs any program of this machine, and is not allowed",
            hint="Set security.allow_command_override in the configuration to allow it.",
            field="command_override",
        )
    for name, value, where in _flags(options):
        if _is_dangerous(name) and not security.allow_dangerous_flags:
            raise InvalidRequest(
                f"{where}: --{name} reaches files, programs or networks beyond the model",
                hint="Set security.allow_dangerous_flags in the configuration to allow it.",
                field=where,
            )
        _check_shown_file(name, str(value), where, where, security)
    for name in options.environment:
        _check_variable(name, security)
    if options.preset_ini:
        _check_preset(options.preset_ini, security)


def _flags(options: Options) -> Iterator[tuple[str, Value, str]]:
    for key, value in options.backend_options.items():
        yield key.replace("_", "-"), value, f"backend_options.{key}"
    for name, value in options.extra_args.items():
        yield name.lstrip("-"), value, f"backend_options.extra_args.{name}"


def _is_dangerous(name: str) -> bool:
    return name in DANGEROUS or (lookup(name) is None and _REACHING.fullmatch(name) is not None)


def _check_shown_file(
    name: str, path: str, where: str, field: str, security: SecurityConfig
) -> None:
    endings = SHOWN_FILES.get(name)
    if endings and not path.lower().endswith(endings) and not security.allow_dangerous_flags:
        raise InvalidRequest(
            f"{where}: the name of this file must end in {' or '.join(endings)}",
            hint="Name it so, or set security.allow_dangerous_flags in the configuration.",
            field=field,
        )


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
    for line in preset_lines(preset):
        if line.section is not None:
            continue
        key, where = line.key, f"preset_ini line {line.number}"
        found = lookup(key)
        name = found[0].name if found else key.lstrip("-").replace("_", "-").lower()
        if name in RESERVED and name != "version":  # the preset's own, of its format
            raise InvalidRequest(f"{where}: {RESERVED[name]}", field="preset_ini")
        if security.allow_dangerous_flags:
            continue
        if _is_dangerous(name) or key.upper().startswith(("LLAMA_", "HF_", "MTMD_")):
            raise InvalidRequest(
                f"{where}: {key} reaches files, programs or networks beyond the model",
                hint="Write flags by their names, or set security.allow_dangerous_flags in the "
                "configuration.",
                field="preset_ini",
            )
        _check_shown_file(name, line.value, where, "preset_ini", security)
