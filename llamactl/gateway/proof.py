"""The secret that nginx shows to be told instances' keys, in a file that nginx includes."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from llamactl.errors import ConfigError
from llamactl.secret import Secret

FILE_NAME = "nginx-proof.conf"
#: The header by which nginx proves that it is the one that may be told instances' keys.
PROOF_HEADER = "X-Llamactl-Accel"
_LINE = re.compile(rf'^proxy_set_header {PROOF_HEADER} "([0-9a-f]{{64}})";$', re.MULTILINE)


def ensure_proof(data_dir: Path) -> Secret:
    """The secret in ``data_dir``, made with mode 0600 if there is none. Raises ``ConfigError``."""
    path = data_dir / FILE_NAME
    try:
        if not os.path.lexists(path):
            _make(path)
        match = _LINE.search(path.read_text())
    except OSError as error:
        raise ConfigError(f"server.accel: {path}: {error.strerror}") from error
    if match is None:
        raise ConfigError(f"server.accel: {path} is damaged", hint="Delete it, and start again.")
    return Secret(match[1])


def _make(path: Path) -> None:
    partial = path.with_name(path.name + ".incomplete")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(
            "# Made by llamactl for nginx to include. Whoever knows this line and holds a key\n"
            "# can be told the keys of instances: keep it as it is, readable to nobody else.\n"
            f'proxy_set_header {PROOF_HEADER} "{secrets.token_hex(32)}";\n'
        )
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
