"""The environment of an instance's process. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from llamactl.config import Config
from llamactl.instances.options import Options
from llamactl.secret import Secret

#: What the server's own environment must not hand on: our secrets, and whatever would set
#: llama-server's flags behind the back of the command line that is shown.
_SCRUBBED = re.compile(
    r"LLAMACTL_.*|LLAMA_.*|HF_TOKEN.*|HUGGING_FACE_HUB_TOKEN|HF_ENDPOINT|MODEL_ENDPOINT|AIP_.*"
    r"|HF_HUB_CACHE|HUGGINGFACE_HUB_CACHE|MTMD_.*|GUNICORN_.*|NOTIFY_SOCKET|LISTEN_.*"
)


def scrubbed(inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables that any llama.cpp may see."""
    return {name: value for name, value in inherited.items() if not _SCRUBBED.fullmatch(name)}


def _secrets(config: Config, token: Secret | None) -> set[str]:
    """Our own secrets, which a configuration can take from variables of any name."""
    known = (*config.auth.management_keys, config.auth.metrics_key, config.hub.token, token)
    return {secret.reveal() for secret in known if secret is not None}


def child_environment(
    inherited: Mapping[str, str],
    config: Config,
    options: Options,
    api_key: Secret,
    token: Secret | None,
) -> dict[str, str]:
    """The server's own variables less llamactl's secrets, then the configured and the chosen ones.

    An instance that reads the hub itself gets the token and the mirror; it and a router find in the
    Hub cache what llamactl downloaded.
    """
    secrets = _secrets(config, token)
    variables = {name: value for name, value in scrubbed(inherited).items() if value not in secrets}
    # Today's llama-server looks for the Hub cache here; LLAMA_CACHE would be looked at first, and
    # is the flat cache for builds before 2026.
    variables["HF_HUB_CACHE"] = str(config.llama_cpp.hub_dir)
    if options.wants_hub:
        variables["HF_ENDPOINT"] = config.hub.endpoint
        if token is not None:
            variables["HF_TOKEN"] = token.reveal()
    if config.hub.offline:
        variables["LLAMA_ARG_OFFLINE"] = "1"
    variables.update(config.llama_cpp.environment)
    variables.update(options.environment)
    variables["LLAMA_API_KEY"] = api_key.reveal()
    return variables
