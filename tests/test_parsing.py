"""From what YAML or a variable gave to what the program uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llamactl import parsing
from llamactl.parsing import Parser

ENVIRON = {"HOME": "/home/somebody"}


@pytest.mark.parametrize(
    ("parse", "raw", "value"),
    [
        (parsing.boolean, True, True),
        (parsing.boolean, " ON ", True),
        (parsing.boolean, "0", False),
        (parsing.optional_text, "", None),
        (parsing.optional_text, "llama-server", "llama-server"),
        (parsing.number(0, 9, whole=True), "7", 7),
        (parsing.number(0, 9, whole=True), 7.0, 7),
        (parsing.number(0, 9, whole=False), "0.5", 0.5),
        (parsing.optional(parsing.number(0, 9, whole=True)), "none", None),
        (parsing.byte_count(0), "1.5 GiB", 3 * 2**29),
        (parsing.byte_count(0), "20MB/s", 20_000_000),
        (parsing.texts, "a, b,", ("a", "b")),
        (parsing.texts, ["a", "b"], ("a", "b")),
        (parsing.arguments, "--alias 'two words' -c 4", ("--alias", "two words", "-c", "4")),
        (parsing.arguments, ["-c", 4096, "--temp", 0.5], ("-c", "4096", "--temp", "0.5")),
        (parsing.variables, "A=1, B=x=y", {"A": "1", "B": "x=y"}),
        (parsing.variables, {"A": 1}, {"A": "1"}),
        (parsing.limits, '{"small": 2}', {"small": 2}),
        (parsing.limits, "small=2,large=1", {"small": 2, "large": 1}),
        (parsing.limits, "", {}),
        (parsing.directory, "~/models", Path("/home/somebody/models")),
        (parsing.host, "[::1]", "::1"),
        (parsing.port_range, "8000-9000", (8000, 9000)),
        (parsing.port_range, [8000, 9000], (8000, 9000)),
        (parsing.proxies, "127.0.0.1, 10.0.0.0/8", ("127.0.0.1", "10.0.0.0/8")),
        (parsing.origins, "https://chat.example", ("https://chat.example",)),
        (parsing.url_prefix, "/llm/", "/llm"),
        (parsing.choice("off", "warn"), "warn", "warn"),
    ],
)
def test_a_value_is_read_as_yaml_and_as_variables_write_it(
    parse: Parser, raw: Any, value: object
) -> None:
    assert parse(raw, ENVIRON) == value


@pytest.mark.parametrize(
    ("parse", "raw", "why"),
    [
        (parsing.boolean, "perhaps", "must be true or false"),
        (parsing.boolean, 1, "must be true or false"),
        (parsing.text, 4, "must be a text"),
        (parsing.text, "a\nb", "must not contain control characters"),
        (parsing.number(0, 9, whole=True), "1.5", "must be a whole number"),
        (parsing.number(0, 9, whole=True), 1.5, "must be a whole number"),
        (parsing.number(0, 9, whole=True), float("inf"), "must be a whole number"),
        (parsing.number(0, 9, whole=True), float("nan"), "must be a whole number"),
        (parsing.number(0, 9, whole=False), "many", "must be a number"),
        (parsing.number(0, 9, whole=False), "nan", "must lie between 0 and 9"),
        (parsing.number(0, 9, whole=False), True, "must be a number"),
        (parsing.byte_count(0), "20 miles", "must be a number of bytes, such as 20MB or 1GiB"),
        (parsing.byte_count(0), "inf", "must be a finite number of bytes"),
        (parsing.byte_count(1024), 1000, "must be at least 1,024 bytes"),
        (parsing.texts, 4, "must be a list of texts"),
        (parsing.texts, ["a", 4], "must be a list of texts"),
        (parsing.variables, "A", "must look like NAME=VALUE,OTHER=VALUE"),
        (parsing.variables, ["A"], "must be a mapping of names to texts"),
        (parsing.variables, {"A": None}, "must be a mapping of names to texts"),
        (parsing.limits, "[1]", "must be a mapping of group names to numbers"),
        (parsing.limits, {"small": 0}, "must lie between 1 and 10000"),
        (parsing.directory, "", "must not be empty"),
        (parsing.host, "http://here", "must be an address or a host name"),
        (parsing.port_range, "8000", "must be two ports"),
        (parsing.port_range, "9000-8000", "must begin with the smaller port"),
        (parsing.proxies, "proxy.lan", "'proxy.lan' is not an address or a network"),
        (parsing.origins, "https://*.example", "is not an origin"),
        (parsing.url_prefix, "llm", "must look like /llamactl"),
        (parsing.choice("off", "warn"), "maybe", "must be one of: off, warn"),
        (parsing.secret, "short", "must have at least 32 characters"),
    ],
)
def test_a_value_that_is_wrong_is_refused_with_what_it_must_be(
    parse: Parser, raw: Any, why: str
) -> None:
    with pytest.raises(ValueError) as refused:
        parse(raw, ENVIRON)
    assert why in str(refused.value)
