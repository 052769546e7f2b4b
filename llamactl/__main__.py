"""``python -m llamactl``."""

from llamactl.cli import main

main()
