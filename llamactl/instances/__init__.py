"""llama-server processes: what they are asked to be, their lives, their output, their ends.

``Supervisor`` in ``supervisor.py`` is the package's one face. Nothing is imported here, because the
embedded server starts through this package and must start fast.
"""
