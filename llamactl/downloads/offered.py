"""The JSON of what a repository offers, and of the machine that it is judged for."""

from __future__ import annotations

from typing import TypedDict

from llamactl.downloads.offers import Offer, RepositoryOffers
from llamactl.models.fit import Machine, Place


class MemoryJson(TypedDict):
    """Bytes of a memory."""

    free: int
    total: int


class DeviceJson(TypedDict):
    """A device that llama.cpp computes on, with the bytes of its memory."""

    name: str
    description: str
    free: int
    total: int


class MachineJson(TypedDict):
    """The memory of this machine. `ram` is null where the system does not tell."""

    ram: MemoryJson | None
    devices: list[DeviceJson]


class OfferedFileJson(TypedDict):
    """A file of a repository, with its bytes."""

    name: str
    size: int


class NeedJson(TypedDict):
    """The bytes that a model takes; null where its header cannot be had."""

    weights: int
    cache: int | None
    compute: int | None
    projector: int
    total: int


class VariantJson(TypedDict):
    """A model that a repository offers under a tag, and whether it fits this machine.

    `newer`: it is cached, and the hub has other bytes by now.
    """

    tag: str
    files: list[OfferedFileJson]
    size: int
    mmproj: str | None
    cached: bool
    newer: bool
    fits: bool | None
    fits_when_idle: bool
    place: Place | None
    memory: NeedJson


class VariantsJson(TypedDict):
    """What a repository offers at a commit. `ctx_size` is the context that is to fit.

    `refused`: the hub lists the files and does not give them, as with a licence that nobody
    accepted yet; the sentence says what to do.
    """

    repo: str
    commit: str
    ctx_size: int
    machine: MachineJson
    refused: str | None
    variants: list[VariantJson]


def offers_json(found: RepositoryOffers) -> VariantsJson:
    """The offers as the REST interface and ``llamactl models variants --json`` show them."""
    return {
        "repo": found.repo_id,
        "commit": found.commit,
        "ctx_size": found.load.ctx_size,
        "machine": machine_json(found.machine),
        "refused": None if found.refused is None else found.refused.details,
        "variants": [_offer_json(offer) for offer in found.offers],
    }


def machine_json(machine: Machine) -> MachineJson:
    """The memory of a machine, in bytes."""
    ram = machine.ram
    return {
        "ram": None if ram is None else {"free": ram.free, "total": ram.total},
        "devices": [
            {
                "name": device.name,
                "description": device.description,
                "free": device.memory.free,
                "total": device.memory.total,
            }
            for device in machine.devices
        ],
    }


def _offer_json(offer: Offer) -> VariantJson:
    variant, need = offer.variant, offer.need
    return {
        "tag": variant.tag,
        "files": [{"name": file.filename, "size": file.size} for file in variant.files],
        "size": variant.size,
        "mmproj": variant.mmproj.filename if variant.mmproj else None,
        "cached": offer.cached,
        "newer": offer.newer,
        "fits": offer.verdict.fits,
        "fits_when_idle": offer.verdict.when_idle,
        "place": offer.verdict.place,
        "memory": {
            "weights": need.weights,
            "cache": need.cache,
            "compute": need.compute,
            "projector": need.projector,
            "total": need.total,
        },
    }
