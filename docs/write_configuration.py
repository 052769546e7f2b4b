"""Print configuration.md from the settings table; ``make docs`` keeps the page up to date."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from llamactl.settings import SETTINGS, Setting

HEAD = """\
# Configuration

Written from the settings table by `make docs`; change the table, not this page.

Later ones win: defaults, `.env`, the YAML file, `LLAMACTL_*` environment variables, the command
line. The file is the one that `--config` names, else `LLAMACTL_CONFIG_PATH`, else the first of
`./llamactl.yaml`, `~/.config/llamactl/config.yaml` (the user's configuration directory) and
`/etc/llamactl/config.yaml`. `.env` is read beside the file in use only.

```yaml
# llamactl.yaml
server:
  port: 8080
downloads:
  bandwidth_limit: 20MB       # per second, all downloads together
instances:
  default_idle_timeout: 10    # minutes
auth:
  management_keys: ["${ADMIN_KEY}"]
```

`${VAR}` and `${VAR:-default}` are replaced from the environment. Hyphens and underscores are equal
in keys. An unset `${VAR}` without a default, an unknown key or variable, a wrong type or a value
out of range stops the start with exit code 2 and names the file, the line and the key.
"""

HUB = """\
## The hub

These are shared with the other programs of the field and have no key in the file.

| variable | default | |
|---|---|---|
"""

HUB_VARIABLES = (
    ("`HF_ENDPOINT`", "`https://huggingface.co`", "The hub, or a mirror of it."),
    (
        "`HF_TOKEN`",
        "the token file that `hf auth login` wrote",
        "The token for private and gated repos; it goes to the hub's own origin only.",
    ),
    (
        "`HF_HUB_OFFLINE`",
        "not set",
        "`1`: the hub is never asked; what is cached goes on working.",
    ),
    (
        "`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`",
        "not set",
        "The proxy for the hub; instances are always reached directly.",
    ),
)

TITLES = {
    "server": "The server",
    "data_dir": "The data directory",
    "backends": "llama.cpp",
    "downloads": "Downloads",
    "instances": "Instances",
    "auth": "Keys",
    "gateway": "Inference requests",
    "security": "Switches that open more",
}


def page() -> str:
    """The whole page."""
    hub = HUB + "".join(f"| {' | '.join(cells)} |\n" for cells in HUB_VARIABLES)
    return "\n".join([HEAD, *_sections(), hub])


def _sections() -> Iterator[str]:
    for section, title in TITLES.items():
        settings = [setting for setting in SETTINGS if setting.name.split(".")[0] == section]
        rows = "\n".join(_row(setting) for setting in settings)
        yield f"## {title}\n\n| key | environment | default | |\n|---|---|---|---|\n{rows}\n"


def _row(setting: Setting) -> str:
    variables = " ".join(f"`{name}`" for name in setting.variables)
    return f"| `{setting.name}` | {variables} | {setting.shown_default} | {setting.help} |"


if __name__ == "__main__":
    unnamed = {setting.name.split(".")[0] for setting in SETTINGS} - set(TITLES)
    if unnamed:
        sys.exit(f"docs/write_configuration.py has no title for: {', '.join(sorted(unnamed))}")
    sys.stdout.write(page())
