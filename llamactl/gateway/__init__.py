"""Inference requests on their way to an instance: who may, where to, and every byte of it."""

from llamactl.gateway.service import Gateway

__all__ = ["Gateway"]
