"""Inference over HTTP (``/v1``, ``/llama-cpp``), and what machines watch (``/metrics``)."""

from __future__ import annotations

from flask import Blueprint

from llamactl.web import metrics
from llamactl.web.openai import inference, native, proxy, router


def blueprints() -> list[Blueprint]:
    """The blueprints of inference, of the ways to an instance, and of ``/metrics``."""
    return [each.blueprint for each in (inference, native, proxy, router, metrics)]
