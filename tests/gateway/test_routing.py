"""The model's name is found, and exchanged, without touching another byte."""

from __future__ import annotations

import json
import random

import pytest

from llamactl.errors import InvalidRequest
from llamactl.gateway.routing import read_form, read_json, readings

KEEPS = [
    b'{"model":"m"}',
    b'  {\n\t"model" : "m" , "n": 1 }\r\n ',
    b'{"seed": 123456789012345678901234567890, "model": "m", "t": 1e-400, "u": 1.10}',
    b'{"z": 1, "a": {"model": "inner", "b": [{"model": "deeper"}]}, "model": "m", "b": null}',
    '{"text": "héllo ☃ 𝄞", "model": "m", "x": "é"}'.encode(),
    rb'{"text": "\u00e9\ud834\udd1e\/ \"model\": \"no\"", "model": "m"}',
    rb'{"mod\u0065l": "m"}',
    b'{"model": "m", "a": 1, "a": 2}',
    b'{"n": ' + b"9" * 10_000 + b', "model": "m"}',
]


@pytest.mark.parametrize("raw", KEEPS)
def test_only_the_bytes_of_the_name_change(raw: bytes) -> None:
    body = read_json(raw)
    assert body.model == "m"
    assert body.raw == raw
    changed = body.with_model('new/"name" é')
    assert changed == raw.replace(b'"m"', json.dumps('new/"name" é').encode(), 1)


def test_the_name_itself_may_be_escaped_and_of_any_script() -> None:
    assert read_json(rb'{"model": "\u006d\/x"}').model == "m/x"
    body = read_json('{"a": "ü", "model": "模型", "b": "ü"}'.encode())
    assert body.model == "模型"
    assert body.with_model("m") == '{"a": "ü", "model": "m", "b": "ü"}'.encode()


def test_a_body_may_name_no_model() -> None:
    for raw in (b"{}", b' { "a" : [ ] } '):
        assert read_json(raw).model is None


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b'"model"',
        b"{",
        b'{"model"',
        b'{"model":',
        b'{"model": "m"',
        b'{"model": "m",}',
        b'{"model": "m"} x',
        b'{"model": "m"}{"model": "m"}',
        b"{'model': 'm'}",
        b'{model: "m"}',
        b'{"model": "m", "n": NaN}',
        b'{"model": "m", "n": [Infinity]}',
        b'{"model": "m", "n": 01}',
        b'{"model": "m" "n": 1}',
        b'{"model": "a\nb"}',
        b'{"model": "\xff"}',
        b"\xef\xbb\xbf{}",
        '{"model": "m"}'.encode("utf-16"),
        b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a": ' * 100_000,
    ],
    ids=lambda raw: repr(raw[:20]),
)
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_json(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"model": 5}',
        b'{"model": null}',
        b'{"model": ["m"]}',
        b'{"model": ""}',
        b'{"model": "a\\nb"}',
        b'{"model": "a\\u0000"}',
        b'{"model": "' + b"x" * 513 + b'"}',
        b'{"model": "a", "model": "b"}',
        rb'{"model": "a", "mod\u0065l": "b"}',
        rb'{"model": "\ud800"}',
    ],
    ids=lambda raw: repr(raw[:24]),
)
def test_a_wrong_name_names_the_field(raw: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_json(raw)
    assert caught.value.field == "model"


def test_random_bodies_are_read_as_the_standard_library_reads_them() -> None:
    rng = random.Random(7)

    def value(depth: int) -> object:
        kind = rng.randrange(7 if depth else 5)
        if kind == 5:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        if kind == 6:
            return {text(): value(depth - 1) for _ in range(rng.randrange(4))}
        return (None, True, rng.randrange(-(10**20), 10**20), rng.random(), text())[kind]

    def text() -> str:
        return "".join(rng.choice('aé☃𝄞"\\\n{}[]:,/ ') for _ in range(rng.randrange(8)))

    for _ in range(500):
        members = {text(): value(3) for _ in range(rng.randrange(5))}
        members.pop("model", None)
        items = [*members.items(), ("model", "m")]
        rng.shuffle(items)
        original = dict(items)
        written = json.dumps(
            original, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 2])
        )
        body = read_json(written.encode())
        assert body.model == "m"
        assert json.loads(body.with_model("other")) == {**original, "model": "other"}


@pytest.mark.parametrize(
    ("name", "meanings"),
    [
        ("m", [("m", None)]),
        ("inst/model", [("inst/model", None), ("inst", "model")]),
        ("inst/org/name:tag", [("inst/org/name:tag", None), ("inst", "org/name:tag")]),
        ("/x", [("/x", None)]),
        ("x/", [("x/", None)]),
    ],
)
def test_a_slash_may_part_an_instance_from_its_model(
    name: str, meanings: list[tuple[str, str | None]]
) -> None:
    assert readings(name) == meanings


def form(*parts: tuple[str, bytes], boundary: str = "xYz") -> bytes:
    lines = b"".join(
        f"--{boundary}\r\n{head}\r\n\r\n".encode() + content + b"\r\n" for head, content in parts
    )
    return lines + f"--{boundary}--\r\n".encode()


FILE = ('Content-Disposition: form-data; name="file"; filename="a.wav"', bytes(range(256)) * 9)
MODEL = ('Content-Disposition: form-data; name="model"', b"whisper")
KIND = "multipart/form-data; boundary=xYz"


@pytest.mark.parametrize("parts", [(MODEL, FILE), (FILE, MODEL)])
def test_a_form_keeps_every_byte_but_the_name(parts: tuple[tuple[str, bytes], ...]) -> None:
    raw = form(*parts)
    body = read_form(raw, KIND)
    assert body.model == "whisper"
    assert body.raw == raw
    assert body.with_model("other/é") == raw.replace(b"whisper", "other/é".encode())


@pytest.mark.parametrize(
    "head",
    [
        "content-disposition:form-data;name=model",
        'Content-Type: text/plain\r\nContent-Disposition: form-data; name="model"',
    ],
)
def test_a_form_may_be_written_in_other_ways(head: str) -> None:
    assert read_form(form((head, b"m")), 'multipart/form-data; boundary="xYz"').model == "m"


def test_a_form_may_begin_with_the_end_of_a_line() -> None:
    raw = b"\r\n" + form(MODEL, FILE)
    body = read_form(raw, KIND)
    assert body.model == "whisper"
    assert body.with_model("other") == raw.replace(b"whisper", b"other")


def test_a_form_may_name_no_model() -> None:
    assert read_form(form(FILE), KIND).model is None
    assert read_form(form(), KIND).model is None


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (form(MODEL), "multipart/form-data"),
        (form(MODEL), "multipart/mixed; boundary=xYz"),
        (form(MODEL), "multipart/form-data; boundary=other"),
        (form(MODEL)[:-20], KIND),
        (b"", KIND),
        (form(MODEL, MODEL), KIND),
        (form((MODEL[0], b"")), KIND),
        (form((MODEL[0], b"\xff")), KIND),
        (form(*[FILE] * 300), KIND),
        (b"a preamble\r\n" + form(MODEL), KIND),
        (b"\r\n\r\n" + form(MODEL), KIND),
        (b'\r\n{"a": "--xYz--"}', KIND),
        (b'{"a": "--xYz--"}', KIND),
        (b'{"a": "--xYz--"}', "Multipart/Form-Data; boundary=xYz"),
    ],
)
def test_a_broken_form_is_refused(raw: bytes, kind: str) -> None:
    with pytest.raises(InvalidRequest):
        read_form(raw, kind)


def test_a_parts_headers_cost_no_more_than_their_length() -> None:
    head = "Content-Disposition: form-data" + ";a" * 2_000_000
    with pytest.raises(InvalidRequest):
        read_form(form((head, b"m")), KIND)


@pytest.mark.parametrize(
    "values", [b"[],", b"{},", b"1,", b"[", b'{"a":1},', b'"\\"",', b'"\\\\",', b'"",' * 5]
)
def test_a_body_of_millions_of_values_is_refused_before_it_is_read(values: bytes) -> None:
    raw = b'{"model": "m", "a": [' + values * 1_000_000 + b"0]}"
    with pytest.raises(InvalidRequest, match="more than 1000000 values"):
        read_json(raw)


def test_a_string_without_an_end_costs_no_more_than_its_length() -> None:
    with pytest.raises(InvalidRequest):
        read_json(b'{"a": ' + b"[" * 2_000_000 + b'"' + rb"\"" * 4_000_000)
    with pytest.raises(InvalidRequest):
        read_json(b'{"a": "' + rb"[\"" * 2_000_000 + b"\\")


def test_what_strings_hold_is_not_taken_for_values() -> None:
    text = json.dumps('[{"a, b": "\\"}], ' * 200_000)
    raw = f'{{"text": {text}, "model": "m"}}'.encode()
    assert read_json(raw).model == "m"


def test_blanks_cost_no_more_than_their_length() -> None:
    blanks = b" \r\n\t" * 1_000_000
    raw = blanks + b"{" + blanks + b'"model"' + blanks + b":" + blanks + b'"m"' + blanks + b"}"
    assert read_json(raw).model == "m"
