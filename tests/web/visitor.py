"""A person with a browser that runs no script: reads pages, fills fields, presses buttons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from urllib.parse import urlencode

from flask.testing import FlaskClient
from werkzeug.datastructures import MultiDict
from werkzeug.test import TestResponse

VOID = frozenset({"input", "meta", "link", "img", "br", "hr"})


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parent: Element | None = None
    children: list[Element | str] = field(default_factory=list)

    def __getitem__(self, name: str) -> str:
        return self.attributes[name]

    def get(self, name: str) -> str | None:
        return self.attributes.get(name)

    def all(self, tag: str = "", **attributes: str) -> Iterator[Element]:
        """Every element below with this tag and these attributes (``class_`` for class)."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        for child in self.children:
            if isinstance(child, Element):
                fits = all(child.get(name) == value for name, value in wanted.items())
                if fits and tag in ("", child.tag):
                    yield child
                yield from child.all(tag, **attributes)

    def one(self, tag: str = "", **attributes: str) -> Element:
        found = list(self.all(tag, **attributes))
        assert len(found) == 1, f"{len(found)} of <{tag} {attributes}> in\n{self.text}"
        return found[0]

    @property
    def text(self) -> str:
        """The text as it is read, white space folded."""
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return " ".join(" ".join(parts).split())

    @property
    def raw_text(self) -> str:
        return "".join(
            child if isinstance(child, str) else child.raw_text for child in self.children
        )

    def within(self, tag: str) -> Element:
        """The nearest element around this one that has the tag."""
        above = self.parent
        while above is not None and above.tag != tag:
            above = above.parent
        assert above is not None, f"<{self.tag}> is in no <{tag}>"
        return above


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self._open = self.root

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attributes}, parent=self._open)
        self._open.children.append(element)
        if tag not in VOID:
            self._open = element

    def handle_endtag(self, tag: str) -> None:
        assert self._open.tag == tag, f"</{tag}> closes <{self._open.tag}>"
        assert self._open.parent is not None
        self._open = self._open.parent

    def handle_data(self, data: str) -> None:
        self._open.children.append(data)


def parse(html: str) -> Element:
    """The page as a tree; asserts that every element is closed in its place."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert builder._open is builder.root, f"<{builder._open.tag}> is never closed"
    return builder.root


class Visitor:
    """One browser. ``page`` is what it shows, ``answer`` the response behind that."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client
        self.answer: TestResponse
        self.page = Element("", {})
        self.path = ""

    def open(self, path: str) -> Element:
        """Go to an address, and wherever that sends a browser."""
        return self._show(self.client.get(path))

    def log_in(self, key: str) -> Element:
        self.open("/login")
        return self.press("Log in", key=key)

    def press(self, label: str, /, **typed: str | list[str]) -> Element:
        """Press the one button of this name, with these values typed into its form's fields."""
        button = self.button(label)
        form = button.within("form")
        values = _values(form)
        if button.get("name"):
            values.add(button["name"], button.get("value") or "")
        for field_name, value in typed.items():
            assert any(form.all(name=field_name)), f"the form has no field {field_name}"
            values.setlist(field_name, value if isinstance(value, list) else [value])
        action = form.get("action") or self.path
        if form.get("method") == "post":
            return self._show(self.client.post(action, data=values))
        return self._show(self.client.get(f"{action}?{urlencode(list(values.items(multi=True)))}"))

    def button(self, name: str) -> Element:
        found = [each for each in self.page.all("button") if _name(each) == name]
        assert len(found) == 1, f"{len(found)} buttons {name!r} among {self.buttons()}"
        return found[0]

    def buttons(self) -> list[str]:
        return [_name(each) for each in self.page.all("button")]

    def field(self, label: str) -> Element:
        """The field with this label."""
        labels = [each for each in self.page.all("label") if each.text == label]
        assert len(labels) == 1, f"{len(labels)} labels {label!r}"
        if labels[0].get("for"):
            return self.page.one(id=labels[0]["for"])
        return labels[0].one("input")

    def _show(self, answer: TestResponse) -> Element:
        hops = 0
        while answer.status_code in (302, 303):
            hops += 1
            assert hops < 5, "redirected in a circle"
            answer = self.client.get(answer.headers["Location"])
        self.answer = answer
        query = answer.request.query_string.decode()
        self.path = answer.request.path + (f"?{query}" if query else "")
        self.page = parse(answer.text)
        return self.page


def _name(button: Element) -> str:
    return button.get("aria-label") or button.text


def _values(form: Element) -> MultiDict[str, str]:
    values: MultiDict[str, str] = MultiDict()
    for element in form.all():
        name = element.get("name")
        if not name or element.get("disabled") is not None:
            continue
        if element.tag == "input":
            ticked = element.get("type") not in ("checkbox", "radio")
            if ticked or element.get("checked") is not None:
                values.add(name, element.get("value") or "")
        elif element.tag == "textarea":
            values.add(name, element.raw_text.removeprefix("\n"))
        elif element.tag == "select":
            options = list(element.all("option"))
            chosen = [each for each in options if each.get("selected") is not None] or options[:1]
            values.add(name, chosen[0]["value"])
    return values
