"""For those who start gunicorn themselves: ``gunicorn -c python:llamactl.gunicorn_conf``."""

import sys

from llamactl.config import load_config
from llamactl.errors import ConfigError
from llamactl.server import gunicorn_settings

try:
    globals().update(gunicorn_settings(load_config()))
except ConfigError as error:
    sys.stderr.write(f"llamactl: {error.details}\n")
    sys.exit(2)
