"""Instances as a file that can be carried elsewhere: named options in JSON. Pure.

One instance is its options as they are posted, several are an object from name to options. What the
REST interface answers is understood too: an instance, or a list of them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from llamactl.errors import InvalidRequest

#: What tells options from an object whose keys are names.
_OPTIONS = frozenset({"backend_type", "backend_options"})


def exported(options: Mapping[str, Any]) -> str:
    """One instance's options, or several by name, as the text of a file."""
    return json.dumps(options, indent=2, ensure_ascii=False) + "\n"


def read_instances(text: str, name: str = "") -> dict[str, Mapping[str, Any]]:
    """Names and raw options of the instances in ``text``; ``name`` is that of one without a name.

    Raises ``InvalidRequest``. What the options hold is not judged here.
    """
    try:
        raw = json.loads(text)
        # Python reads more than JSON is: half a character, and numbers that are none.
        json.dumps(raw, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError:
        raise InvalidRequest("This is nested too deeply", field="json") from None
    except ValueError as error:
        raise InvalidRequest(
            f"This is no JSON: {error}",
            hint="Give what an export wrote, or an instance's options.",
            field="json",
        ) from error
    found = dict(_named(raw, name))
    if not found:
        raise InvalidRequest("There is no instance in it", field="json")
    return found


def _named(raw: Any, name: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    if isinstance(raw, list):
        return [pair for each in raw for pair in _named(_whole(each), "")]
    if not isinstance(raw, dict):
        raise InvalidRequest("This is neither an instance nor several of them", field="json")
    if isinstance(raw.get("options"), dict) and isinstance(raw.get("name"), str):
        return [(name or raw["name"], raw["options"])]
    if raw.keys() & _OPTIONS:
        if not name:
            raise InvalidRequest(
                "These are the options of one instance, without its name",
                hint="Say which name it shall have.",
                field="name",
            )
        return [(name, raw)]
    for key, options in raw.items():
        if not isinstance(options, dict):
            raise InvalidRequest(f"{key[:60]}: an instance's options are an object", field="json")
    if name and len(raw) > 1:
        raise InvalidRequest(
            f"There are {len(raw)} instances in it, and one name",
            hint="Leave the name out; each has its own.",
            field="name",
        )
    return [(name or key, options) for key, options in raw.items()]


def _whole(raw: Any) -> Any:
    if isinstance(raw, dict) and isinstance(raw.get("name"), str) and "options" in raw:
        return raw
    raise InvalidRequest("In a list, each instance has a name and options", field="json")
