"""One small server that turns a model's name into a running, reachable llama.cpp model."""

__version__ = "0.1.0"
