"""Foreign text on pages: nothing in a name, a path, an error or a log line becomes markup."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
from flask import Flask, render_template

from llamactl.errors import InvalidRequest
from llamactl.web.errors import Problem
from llamactl.web.instance_views import CallsView, GroupView, InstancesView, InstanceView, LogView
from llamactl.web.job_views import JobsView, JobView
from llamactl.web.memory_view import ContextView
from llamactl.web.pages.fields import Field
from llamactl.web.pages.instance_editing import FormPage
from llamactl.web.pages.instance_fields import InstanceForm
from llamactl.web.pages.instance_files import ImportPage
from llamactl.web.pages.instance_models import RouterModelsView
from llamactl.web.pages.instance_starts import PresetOffer
from llamactl.web.pages.keys import KeyForm, MadeKey
from llamactl.web.preview_view import PreviewView
from llamactl.web.repository_view import CachedTagView, HitView, OfferView, UpdateView
from llamactl.web.system_view import SystemView
from llamactl.web.texts import last_lines, plain
from llamactl.web.views import CachedModelsView, CachedModelView, DeletionView, KeyView

PAYLOADS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</textarea></title></pre><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)",
]
OWN_SCRIPTS = 3


class Inventory(HTMLParser):
    """What a browser would run or load, and all that it would show."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.suspicious: list[str] = []
        self.shown: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        if tag in ("svg", "iframe", "object", "embed", "style", "base"):
            self.suspicious.append(tag)
        for name, value in attributes:
            self.shown.append(value or "")
            address = name in ("href", "src", "action", "formaction", "hx-get", "hx-post")
            if name.startswith("on") or name == "style":
                self.suspicious.append(f"{tag} {name}")
            if address and (value or "").lower().startswith(("javascript:", "data:")):
                self.suspicious.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def filled(hint: Any, text: str) -> Any:
    """A value of this type that has ``text`` wherever a text can be."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is str:
        return text
    if origin in (types.UnionType, typing.Union):
        return filled(next(each for each in arguments if each is not type(None)), text)
    if origin is typing.Literal:
        return arguments[0]
    if origin is tuple and Ellipsis not in arguments:
        return tuple(filled(each, text) for each in arguments)
    if origin in (tuple, list, Sequence):
        return (filled(arguments[0], text),) * 2
    if origin is Mapping:
        return {}
    if dataclasses.is_dataclass(hint):
        hints = typing.get_type_hints(hint)
        fields = dataclasses.fields(hint)
        return typing.cast(Any, hint)(
            **{each.name: filled(hints[each.name], text) for each in fields}
        )
    return {bool: True, int: 3, float: 3.0}[hint]


def job(text: str) -> JobView:
    buttons = (("pause", text, ""),)
    view: JobView = filled(JobView, text)
    return dataclasses.replace(view, buttons=buttons, status="downloading")


def instance(text: str) -> InstanceView:
    view: InstanceView = filled(InstanceView, text)
    return dataclasses.replace(view, buttons=(("start", text, ""),), status="stopped")


def fields(text: str) -> list[Field]:
    kinds = ("text", "number", "check", "select", "lines", "date")
    return [dataclasses.replace(filled(Field, text), kind=kind) for kind in kinds]


def pages(text: str) -> list[tuple[str, dict[str, Any]]]:
    error = InvalidRequest(text, hint=text, field="x")
    model = filled(CachedModelView, text)
    key_form = KeyForm(fields(text), "per_instance", [(1, text, True)], text, 7)
    return [
        ("models/_jobs.html", {"view": JobsView((job(text),))}),
        ("models/_cached.html", {"view": CachedModelsView((model, model), 2, text, text)}),
        (
            "models/delete.html",
            {
                "model": model,
                "view": DeletionView(model, model.files, model.files, text),
                "error": error,
            },
        ),
        ("models/index.html", {"form": fields(text)[0], "parts": {}, "filtered": bool}),
        ("models/index.html", {"words": text, "parts": {}, "filtered": lambda: True}),
        (
            "models/repository.html",
            {
                "repo_id": text,
                "refused": error,
                "address": f"/models/{text}",
                "hub_page": f"https://hub.example/{text}",
                "cached": [filled(CachedTagView, text)],
                "offers": [filled(OfferView, text)],
                "jobs": {text.lower(): job(text)},
                "asks": True,
                "context": filled(ContextView, text),
                "error": error,
            },
        ),
        ("models/updates.html", {"updates": [filled(UpdateView, text)], "error": error}),
        (
            "models/search.html",
            {"text": text, "hits": [filled(HitView, text)], "error": error},
        ),
        ("downloads/index.html", {"form": fields(text), "limits": text, "parts": {}}),
        ("downloads/_jobs.html", {"view": JobsView((job(text),))}),
        ("downloads/_show.html", {"view": job(text)}),
        ("downloads/show.html", {"job": job(text), "parts": {}}),
        (
            "instances/_list.html",
            {"view": InstancesView((GroupView(text, text, (instance(text),)),), text)},
        ),
        ("instances/_status.html", {"view": instance(text)}),
        ("instances/_log.html", {"view": LogView(text, (text, text), text)}),
        ("instances/_models.html", {"view": filled(RouterModelsView, text)}),
        ("instances/import.html", {"page": ImportPage(text, text, True, text, text)}),
        ("instances/delete.html", {"instance": instance(text), "error": error}),
        (
            "instances/form.html",
            {
                "form": InstanceForm(*[fields(text)] * 4),
                "page": FormPage(text, {}, text, text, notes=[(text, text)], command_wrong=text),
                "preview": dataclasses.replace(filled(PreviewView, text), wrong=""),
                "preset": filled(PresetOffer, text),
                "command": text,
                "error": error,
                "warning": text,
            },
        ),
        (
            "instances/_preview.html",
            {"preview": filled(PreviewView, text), "preset": filled(PresetOffer, text)},
        ),
        (
            "instances/show.html",
            {
                "name": text,
                "warning": text,
                "calls": CallsView(text, text),
                "log": LogView(text, (text, text), text),
                "preview": filled(PreviewView, text),
                "options": text,
                "parts": {},
            },
        ),
        (
            "keys/index.html",
            {
                "keys": [filled(KeyView, text)],
                "form": key_form,
                "made": MadeKey(text, text),
                "error": error,
            },
        ),
        ("keys/revoke.html", {"key": filled(KeyView, text)}),
        ("system/show.html", {"view": filled(SystemView, text)}),
        ("login.html", {"error": error, "next": text}),
        ("error.html", {"problem": Problem(400, text, f"{text}\n{text}")}),
    ]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_foreign_text_becomes_markup_on_any_page(app: Flask, payload: str) -> None:
    with app.test_request_context("/models"):
        for template, context in pages(payload):
            html = render_template(template, **context)
            found = Inventory()
            found.feed(html)
            assert found.suspicious == [], template
            whole_page = "<html" in html
            assert found.scripts == (OWN_SCRIPTS if whole_page else 0), template
            assert any(payload in each for each in found.shown), f"{template} does not show it"


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;http://evil.example\x07click\x1b]8;;\x07", "click"),
        ("\x1b]0;title\x1b\\after", "after"),
        ("10%\r20%\r\n30%", "10%\n20%\n30%"),
        ("bell\x07 null\x00", "bell\\u0007 null\\u0000"),
        ("gpj\u202efdp.exe", "gpj\\u202efdp.exe"),
        ("a\u2028b", "a\\u2028b"),
        ("tab\tand ünïcode 模型", "tab\tand ünïcode 模型"),
        ("\x9b31mc1", "\\u009b31mc1"),
    ],
)
def test_what_terminals_obey_and_what_hides_is_seen_or_gone(raw: str, shown: str) -> None:
    assert plain(raw) == shown


def test_the_last_lines_of_a_log_are_cut_to_size() -> None:
    raw = b"".join(b"line %d\n" % number for number in range(1000)) + b"x" * 5000 + b"\xff"
    lines = last_lines(raw, 3)
    assert lines[:2] == ("line 998", "line 999")
    assert len(lines[2]) == 2001 and lines[2].endswith("…")
    assert last_lines(b"", 10) == ()
