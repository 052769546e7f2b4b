from __future__ import annotations

from typing import Any

import pytest

from llamactl.config import Config
from llamactl.errors import InvalidRequest
from llamactl.instances.commandline import parse_command
from llamactl.instances.flags import DANGEROUS, FLAGS, lookup
from llamactl.instances.options import Options
from tests.conftest import ConfigFactory

VALUES = {"switch": True, "toggle": True, "commas": ["x"], "int": 1}


@pytest.mark.parametrize("name", sorted(DANGEROUS))
def test_a_dangerous_flag_needs_the_switch(make_config: ConfigFactory, name: str) -> None:
    found = lookup(name)
    assert found is not None
    value = VALUES.get(found[0].kind, "x")
    forms: list[dict[str, Any]] = [
        {found[0].key: value},
        {"extra_args": {f"--{name}": value}},
        *({alias: value} for alias in found[0].aliases),
    ]
    pasted = f"llama-server --{name} {'x' if found[0].values else ''}"
    bodies: list[dict[str, Any]] = [
        *({"backend_options": form} for form in forms),
        {"preset_ini": f"[*]\n{name} = x\n"},
        *({"preset_ini": f"[*]\n{alias} = x\n"} for alias in found[0].aliases),
        parse_command(pasted),
    ]
    for body in bodies:
        with pytest.raises(InvalidRequest, match="beyond the model") as caught:
            Options.from_json(body, make_config())
        assert "security.allow_dangerous_flags" in caught.value.hint
        allowed = make_config({"security.allow_dangerous_flags": True})
        Options.from_json(body, allowed)


@pytest.mark.parametrize(
    "name",
    ["models-preset-url", "tools-shell", "log-answers-dir", "new-rpc", "exec", "Slot-Save-x"],
)
def test_a_flag_of_a_newer_build_that_says_it_reaches_further_needs_the_switch(
    make_config: ConfigFactory, name: str
) -> None:
    assert lookup(name) is None
    for body in (
        {"backend_options": {"model": "/m.gguf", "extra_args": {f"--{name}": "x"}}},
        {"preset_ini": f"[*]\n{name} = x\n"},
    ):
        with pytest.raises(InvalidRequest, match="beyond the model"):
            Options.from_json(body, make_config())
        Options.from_json(body, make_config({"security.allow_dangerous_flags": True}))


def test_other_flags_of_a_newer_build_need_nothing(config: Config) -> None:
    for name in ("flag-of-tomorrow", "profile", "director", "n-toolset", "urls-x"):
        Options.from_json({"backend_options": {"extra_args": {f"--{name}": "x"}}}, config)


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "PATH",
        "HOME",
        "PYTHONPATH",
        "GGML_BACKEND_PATH",
        "LLAMA_ARG_TOOLS",
        "LLAMA_CACHE",
        "HF_ENDPOINT",
        "HF_TOKEN",
        "MODEL_ENDPOINT",
        "HTTPS_PROXY",
        "https_proxy",
        "AIP_MODE",
        "AIP_HTTP_PORT",
        "CUDA_INJECTION64_PATH",
        "NVTX_INJECTION64_PATH",
        "HSA_TOOLS_LIB",
        "OMP_TOOL_LIBRARIES",
        "NCCL_NET_PLUGIN",
        "VK_ICD_FILENAMES",
        "VK_DRIVER_FILES",
        "VK_LAYER_PATH",
        "OCL_ICD_VENDORS",
        "LIBVA_DRIVERS_PATH",
        "SHELLOPTS",
        "PS4",
    ],
)
def test_a_dangerous_variable_needs_the_switch(make_config: ConfigFactory, name: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Options.from_json({"environment": {name: "x"}}, make_config())
    assert caught.value.field == f"environment.{name}"
    allowed = make_config({"security.allow_dangerous_environment": True})
    assert Options.from_json({"environment": {name: "x"}}, allowed).environment == {name: "x"}


@pytest.mark.parametrize("name", ["LLAMA_API_KEY", "LLAMACTL_RUN", "LLAMA_ARG_PORT"])
def test_our_own_variables_cannot_be_set_at_all(make_config: ConfigFactory, name: str) -> None:
    config = make_config({"security.allow_dangerous_environment": True})
    with pytest.raises(InvalidRequest, match="set by llamactl itself"):
        Options.from_json({"environment": {name: "x"}}, config)


@pytest.mark.parametrize(
    "name",
    [
        "CUDA_VISIBLE_DEVICES",
        "OMP_NUM_THREADS",
        "GGML_CUDA_X",
        "HSA_OVERRIDE_GFX_VERSION",
        "GGML_VK_VISIBLE_DEVICES",
        "A",
    ],
)
def test_harmless_variables_are_allowed(config: Config, name: str) -> None:
    assert Options.from_json({"environment": {name: "0"}}, config).environment == {name: "0"}


@pytest.mark.parametrize(
    ("key", "good"),
    [
        ("chat_template_file", "~/templates/chatml.jinja"),
        ("grammar_file", "/srv/list.GBNF"),
        ("json_schema_file", "person.json"),
    ],
)
def test_a_secret_is_no_template_grammar_or_schema(
    make_config: ConfigFactory, key: str, good: str
) -> None:
    secret = "/home/someone/.cache/huggingface/token"
    forms: list[dict[str, Any]] = [
        {"backend_options": {key: secret}},
        {"backend_options": {"extra_args": {f"--{key}": secret}}},
        {"preset_ini": f"[*]\n{key.replace('_', '-')} = {secret}\n"},
        {"preset_ini": f"[*]\n{key.replace('_', '-')} = {secret} ;{good}\n"},
        {"preset_ini": f"[*]\n{key.replace('_', '-')}={secret}#{good}\n"},
    ]
    allowed = make_config({"security.allow_dangerous_flags": True})
    for form in forms:
        with pytest.raises(InvalidRequest, match="must end in"):
            Options.from_json(form, make_config())
        Options.from_json(form, allowed)
    Options.from_json({"backend_options": {key: good}}, make_config())


def test_command_override_needs_the_switch(make_config: ConfigFactory) -> None:
    given = {"command_override": "/bin/sh -c true"}
    with pytest.raises(InvalidRequest, match="any program"):
        Options.from_json(given, make_config())
    allowed = make_config({"security.allow_command_override": True})
    assert Options.from_json(given, allowed).command_override == "/bin/sh -c true"


@pytest.mark.parametrize(
    "line",
    [
        "tools = all",
        "--tools=all",
        "LLAMA_ARG_TOOLS = all",
        "mcp-servers-json = {}",
        "log-file = /etc/x",
        "LLAMA_ARG_STATIC_PATH = /",
        "rpc = 10.0.0.1:1",
    ],
)
def test_a_preset_is_no_way_around_the_switch(make_config: ConfigFactory, line: str) -> None:
    given = {"preset_ini": f"version = 1\n[*]\nctx-size = 512\n{line}\n"}
    with pytest.raises(InvalidRequest, match="preset_ini line 4"):
        Options.from_json(given, make_config())
    Options.from_json(given, make_config({"security.allow_dangerous_flags": True}))


def test_a_preset_cannot_take_the_port(make_config: ConfigFactory) -> None:
    config = make_config({"security.allow_dangerous_flags": True})
    with pytest.raises(InvalidRequest, match="free port"):
        Options.from_json({"preset_ini": "[*]\nport = 80\n"}, config)


def test_a_harmless_preset_is_allowed(config: Config) -> None:
    text = "; a comment = with a sign\n[model]\nctx-size = 4096\nhf-repo = org/name\n"
    assert Options.from_json({"preset_ini": text}, config).preset_ini == text


def test_every_dangerous_name_is_a_flag() -> None:
    assert {flag.name for flag in FLAGS} >= DANGEROUS
