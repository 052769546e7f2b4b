"""What a repository offers: its models with their sizes, which are cached, what memory they take.

The header of a model that is not here is read from its first bytes on the hub, once for all quants
of a model, since they differ in their weights only.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from llamactl.errors import DisabledRepo, GatedRepo, Interrupted, TransferError, Unauthorized
from llamactl.hub.client import HubClient
from llamactl.models.cache import ModelCache
from llamactl.models.dimensions import Dimensions
from llamactl.models.filenames import split_of, tag_of
from llamactl.models.fit import Load, Machine, Need, Verdict, estimate, judge
from llamactl.models.gguf import NotGGUF, read_dimensions, read_header
from llamactl.models.hubfile import HubFile
from llamactl.models.selection import Variant, quants
from llamactl.models.snapshots import CachedModel

log = logging.getLogger(__name__)

#: Far more than stands before the lists of a tokenizer.
_HEADER_BYTES = 256 * 1024
#: Different models of one repository whose headers are asked for, and seconds for all of them.
_MOST_HEADERS = 8
_PATIENCE = 8.0
_REMEMBERED = 256
#: A download would meet the same, until somebody does something about it.
_REFUSALS = (DisabledRepo, GatedRepo, Unauthorized)


@dataclass(frozen=True)
class Offer:
    """One model of the repository, and how it would fit this machine.

    ``newer``: it is cached, and the hub has other bytes by now.
    """

    variant: Variant
    cached: bool
    newer: bool
    need: Need
    verdict: Verdict


@dataclass(frozen=True)
class RepositoryOffers:
    """What the repository has at ``commit``; memory is reckoned for ``load``.

    ``refused`` is what the hub said where it lists the files and does not give them.
    """

    repo_id: str
    commit: str
    load: Load
    machine: Machine
    offers: tuple[Offer, ...]
    refused: TransferError | None = None


class Offers:
    """Any thread may ask. Headers that were read once are remembered by their file's digest."""

    def __init__(self, hub: HubClient, cache: ModelCache) -> None:
        self._hub = hub
        self._cache = cache
        self._lock = threading.Lock()
        self._known: OrderedDict[str, Dimensions | None] = OrderedDict()

    def of(self, repo_id: str, load: Load, machine: Machine) -> RepositoryOffers:
        """Ask the hub what it has today; raises what the hub raises.

        A header that cannot be had in time is no error: what it would tell is then not known.
        """
        commit = self._hub.commit(repo_id)
        variants = quants(self._hub.tree(repo_id, commit))
        models = [model for model in self._cache.list() if model.ref.repo_id == repo_id]
        dimensions, refused = self._dimensions(repo_id, commit, variants, models)
        offers = []
        for variant in variants:
            projector = variant.mmproj.size if variant.mmproj else 0
            need = estimate(
                dimensions.get(_model_of(variant)),
                variant.size - projector,
                load,
                projector=projector,
            )
            holding = [model for model in models if _holds(model, variant)]
            newer = any(_differs(model, variant) for model in holding)
            offers.append(Offer(variant, bool(holding), newer, need, judge(need, machine)))
        return RepositoryOffers(repo_id, commit, load, machine, tuple(offers), refused)

    def _dimensions(
        self,
        repo_id: str,
        commit: str,
        variants: Sequence[Variant],
        cached: Iterable[CachedModel],
    ) -> tuple[Mapping[str, Dimensions | None], TransferError | None]:
        """The dimensions of each different model, from the disk where they are there.

        And the first of the hub's refusals that a person can do something about.
        """
        wanted: dict[str, HubFile] = {}
        for variant in variants:
            wanted.setdefault(_model_of(variant), variant.files[0])
        found: dict[str, Dimensions | None] = {}
        for model in cached:
            name = _model_name(model.gguf.name, model.ref.tag)
            if name in wanted and name not in found:
                found[name] = _read(model)
        missing = [name for name in wanted if found.get(name) is None][:_MOST_HEADERS]
        asked = [wanted[name] for name in missing]
        answers = self._ask_all(repo_id, commit, asked)
        refusals = (answer for answer in answers if isinstance(answer, TransferError))
        for name, answer in zip(missing, answers, strict=True):
            found[name] = None if isinstance(answer, TransferError) else answer
        return found, next(refusals, None)

    def _ask_all(
        self, repo_id: str, commit: str, files: Sequence[HubFile]
    ) -> list[Dimensions | TransferError | None]:
        if not files:
            return []
        halt = threading.Event()
        late = threading.Timer(_PATIENCE, halt.set)
        late.name = "download-offers-late"
        late.start()
        try:
            with ThreadPoolExecutor(4, "download-offers") as pool:
                return list(pool.map(lambda file: self._ask(repo_id, commit, file, halt), files))
        finally:
            late.cancel()
            late.join()

    def _ask(
        self, repo_id: str, commit: str, file: HubFile, halt: threading.Event
    ) -> Dimensions | TransferError | None:
        with self._lock:
            if file.oid in self._known:
                self._known.move_to_end(file.oid)
                return self._known[file.oid]
        try:
            head = self._hub.beginning(repo_id, commit, file.filename, _HEADER_BYTES, halt)
            found = read_dimensions(file.filename, head)
        except NotGGUF:
            found = None
        except (TransferError, Interrupted) as error:
            log.info("%s of %s: its header cannot be had: %s", file.filename, repo_id, error)
            return error if isinstance(error, _REFUSALS) else None
        with self._lock:
            self._known[file.oid] = found
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found


def _model_of(variant: Variant) -> str:
    return _model_name(variant.files[0].filename, variant.tag)


def _model_name(filename: str, tag: str) -> str:
    """What the quants of one model have in common: the file's name without its quant."""
    name = split_of(filename).prefix.rpartition("/")[2].casefold()
    quant = (tag_of(filename) or tag).casefold()
    return name.replace(quant, "").strip("-._") if quant else name


def _holds(model: CachedModel, variant: Variant) -> bool:
    names = {file.name for file in model.files}
    return model.complete and all(file.filename in names for file in variant.files)


def _differs(model: CachedModel, variant: Variant) -> bool:
    """Whether a file of both has other bytes here than on the hub, as far as that is known."""
    here = {file.name: file for file in model.files}
    wanted = variant.files if variant.mmproj is None else (*variant.files, variant.mmproj)
    return any(
        file.filename in here
        and (
            here[file.filename].size != file.size
            or file.sha256 != (here[file.filename].sha256 or file.sha256)
        )
        for file in wanted
    )


def _read(model: CachedModel) -> Dimensions | None:
    try:
        return read_header(model.gguf.path).dimensions
    except NotGGUF:
        return None
