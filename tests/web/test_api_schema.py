"""``/openapi.json`` believed word for word: what schemathesis makes of it is answered as described.

Requests that fit the description and requests that just don't, for every operation.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import Any

import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = 4
CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
HOW = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def test_every_operation_answers_as_it_is_described(app: Flask, management_key: str) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    asked = 0
    seen: Counter[int] = Counter()
    for result in schema.get_all_operations():
        assert isinstance(result, Ok), result
        operation = result.ok()
        # What a running instance answers is its own.
        if "/proxy/" in operation.path:
            continue
        asked += 1
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            # An operation without parameters cannot be asked wrongly.
            with contextlib.suppress(Unsatisfiable):
                check(operation, mode, management_key, seen)
    assert asked > 50
    assert {200, 400, 404} <= set(seen)


def check(operation: Any, mode: Any, key: str, seen: Counter[int]) -> None:
    @given(case=operation.as_strategy(generation_mode=mode))
    @HOW
    def ask(case: Any) -> None:
        response = case.call(headers={"Authorization": f"Bearer {key}"})
        seen[response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    ask()
