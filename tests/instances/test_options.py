from __future__ import annotations

import json
from typing import Any

import pytest

from llamactl.config import Config
from llamactl.errors import InvalidInstanceName, InvalidRequest, UnsupportedBackend
from llamactl.instances.options import Options, check_name, is_reference
from tests.conftest import ConfigFactory


def options(config: Config, backend_options: dict[str, Any] | None = None, **more: Any) -> Options:
    return Options.from_json({"backend_options": backend_options or {}, **more}, config)


def test_what_is_left_out_has_the_configured_default(make_config: ConfigFactory) -> None:
    config = make_config(
        {
            "instances.default_auto_restart": False,
            "instances.default_max_restarts": 7,
            "instances.default_idle_timeout": 2.5,
        }
    )
    read = options(config)
    assert (read.auto_restart, read.max_restarts, read.idle_timeout) == (False, 7, 2.5)
    assert read.on_demand_start is True


def test_json_reads_back_to_the_same_options(config: Config) -> None:
    written = {
        "backend_type": "llama_cpp",
        "backend_options": {
            "model": "org/name:Q4_K_M",
            "ctx_size": 4096,
            "no_mmproj": True,
            "lora": ["~/a.gguf", "b.gguf"],
            "flash_attn": "on",
            "temp": 0.5,
            "extra_args": {"--new-flag": "7", "--bare": True, "--many": ["a", "b"]},
        },
        "aliases": ["gpt"],
        "auto_restart": False,
        "max_restarts": 0,
        "restart_delay": 1.5,
        "on_demand_start": False,
        "idle_timeout": 0.25,
        "environment": {"CUDA_VISIBLE_DEVICES": "0"},
        "command_override": None,
        "group": "small",
        "preset_ini": None,
        "nodes": [],
    }
    read = Options.from_json(written, config)
    assert read.to_json() == written
    assert Options.from_json(json.loads(json.dumps(read.to_json())), config) == read


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ({"c": 512}, "ctx_size", 512),
        ({"ngl": 99}, "gpu_layers", 99),
        ({"n_gpu_layers": "all"}, "gpu_layers", "all"),
        ({"ctx-size": "4096"}, "ctx_size", 4096),
        ({"flash_attn": True}, "flash_attn", "on"),
        ({"flash_attn": "auto"}, "flash_attn", "auto"),
        ({"no_warmup": True}, "warmup", False),
        ({"no_webui": True}, "ui", False),
        ({"embeddings": True}, "embedding", True),
        ({"tensor_split": [3, 1]}, "tensor_split", ("3", "1")),
        ({"lora": "one.gguf"}, "lora", ("one.gguf",)),
        ({"temp": "0.7"}, "temp", 0.7),
        ({"seed": -1}, "seed", -1),
        ({"seed": "-1"}, "seed", -1),
        ({"gpu_layers": -1}, "gpu_layers", -1),
        ({"tensor_split": "3,1"}, "tensor_split", ("3", "1")),
        ({"dry_sequence_breaker": "a,b"}, "dry_sequence_breaker", ("a,b",)),
        ({"extra_args": {"--ctx-size": 8192}}, "ctx_size", 8192),
        ({"jinja": "false"}, "jinja", False),
    ],
)
def test_short_forms_and_old_names_mean_the_canonical_flag(
    config: Config, given: dict[str, Any], key: str, value: object
) -> None:
    assert options(config, given).backend_options == {key: value}


def test_null_leaves_a_flag_alone(config: Config) -> None:
    assert options(config, {"ctx_size": None, "threads": 2}).backend_options == {"threads": 2}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"ctx_size": "many"}, "backend_options.ctx_size"),
        ({"ctx_size": True}, "backend_options.ctx_size"),
        ({"ctx_size": 1.5}, "backend_options.ctx_size"),
        ({"temp": float("nan")}, "backend_options.temp"),
        ({"temp": float("inf")}, "backend_options.temp"),
        ({"temp": "9" * 400}, "backend_options.temp"),
        ({"ctx_size": 10**400}, "backend_options.ctx_size"),
        ({"model": 5.5, "model_": ""}, "backend_options.model_"),
        ({"model": ""}, "backend_options.model"),
        ({"model": ["a"]}, "backend_options.model"),
        ({"model": "a\0b"}, "backend_options.model"),
        ({"jinja": "perhaps"}, "backend_options.jinja"),
        ({"context": 4096}, "backend_options.context"),
        ({"c": 1, "ctx_size": 2}, "backend_options.ctx_size"),
        ({"c": 1, "extra_args": {"ctx-size": 2}}, "backend_options.extra_args.ctx-size"),
        ({"extra_args": ["-c"]}, "backend_options.extra_args"),
        ({"extra_args": {"a b": 1}}, "backend_options.extra_args.a b"),
        ({"control_vector_layer_range": ["1"]}, "backend_options.control_vector_layer_range"),
    ],
)
def test_a_wrong_value_is_refused_naming_its_field(
    config: Config, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        options(config, given)
    assert caught.value.field == field
    assert field in caught.value.message or field.rpartition(".")[2] in caught.value.message


def test_a_number_for_an_unknown_flag_may_have_any_size(config: Config) -> None:
    given = options(config, {"extra_args": {"--new-flag": 10**400}})
    assert given.extra_args == {"--new-flag": f"{10**400}"}


@pytest.mark.parametrize("key", ["model", "hf_repo", "alias", "lora", "chat_template", "device"])
@pytest.mark.parametrize("value", ["-x", "--tools", "--log-file=/etc/passwd"])
def test_a_value_that_begins_with_a_dash_never_becomes_a_flag(
    config: Config, key: str, value: str
) -> None:
    with pytest.raises(InvalidRequest, match="begins with '-'"):
        options(config, {key: value})
    with pytest.raises(InvalidRequest, match="begins with '-'"):
        options(config, {"extra_args": {"new-flag": value}})


def test_an_unknown_flag_is_named_with_the_nearest_known_one(config: Config) -> None:
    with pytest.raises(InvalidRequest) as caught:
        options(config, {"ctxsize": 1})
    assert "ctx_size" in caught.value.hint and "extra_args" in caught.value.hint


@pytest.mark.parametrize(
    "key", ["host", "port", "api_key", "api_key_file", "ssl_key_file", "api_prefix", "hf_token"]
)
def test_what_llamactl_decides_itself_cannot_be_set(make_config: ConfigFactory, key: str) -> None:
    config = make_config({"security.allow_dangerous_flags": True})
    for given in ({key: "1"}, {"extra_args": {"--" + key.replace("_", "-"): "1"}}):
        with pytest.raises(InvalidRequest, match="cannot be set") as caught:
            options(config, given)
        assert caught.value.hint == "Leave it out."


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"max_restarts": -1}, "max_restarts"),
        ({"idle_timeout": "soon"}, "idle_timeout"),
        ({"auto_restart": 3}, "auto_restart"),
        ({"auto_restart": "yes"}, "auto_restart"),
        ({"auto_restart": "true"}, "auto_restart"),
        ({"on_demand_start": 1}, "on_demand_start"),
        ({"max_restarts": "3"}, "max_restarts"),
        ({"max_restarts": True}, "max_restarts"),
        ({"restart_delay": "5"}, "restart_delay"),
        ({"idle_timeout": "30"}, "idle_timeout"),
        ({"aliases": ["two words"]}, "aliases"),
        ({"aliases": 7}, "aliases"),
        ({"environment": {"A B": "x"}}, "environment.A B"),
        ({"environment": ["A=b"]}, "environment"),
        ({"group": 5}, "group"),
        ({"nodes": ["elsewhere"]}, "nodes"),
        ({"idle_timout": 5}, "idle_timout"),
        ({"docker_enabled": True}, "docker_enabled"),
    ],
)
def test_a_wrong_field_is_refused_by_name(
    config: Config, given: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        options(config, **given)
    assert caught.value.field == field


def test_a_misspelled_field_suggests_the_right_one(config: Config) -> None:
    with pytest.raises(InvalidRequest) as caught:
        options(config, idle_timout=5)
    assert caught.value.hint == "Did you mean idle_timeout?"


def test_what_the_go_llamactl_stored_for_nothing_is_tolerated(config: Config) -> None:
    assert options(config, docker_enabled=False, backend_type="llama_cpp") == options(config)


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_a_body_that_is_no_object_is_refused_or_empty(config: Config, body: object) -> None:
    if body is None:
        assert Options.from_json(body, config).is_router
    else:
        with pytest.raises(InvalidRequest, match="must be an object"):
            Options.from_json(body, config)


def test_another_backend_is_refused(config: Config) -> None:
    for name in ("llama_cpp", "llama-cpp", "llama.cpp"):
        assert options(config, backend_type=name).backend_type == "llama_cpp"
    with pytest.raises(UnsupportedBackend):
        options(config, backend_type="vllm")


@pytest.mark.parametrize("name", ["a", "A9", "model.Q4_K_M", "x" * 50, "1-2_3"])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "-h",
        "new",
        "a/b",
        "a b",
        "a\n",
        "x" * 51,
        "é",
        "a%2e",
        "_x",
        "\x1b[31m",
        None,
    ],
)
def test_bad_names(name: Any) -> None:
    with pytest.raises(InvalidInstanceName):
        check_name(name)


@pytest.mark.parametrize(
    ("model", "reference"),
    [
        ("org/name:Q4_K_M", True),
        ("org/name", True),
        ("org/name:latest", True),
        ("models/file.gguf", False),
        ("models/file.GGUF", False),
        ("./org/name", False),
        ("~/org/name", False),
        ("/org/name", False),
        ("$HOME/name", False),
        ("name", False),
        ("a/b/c", False),
        ("org/name:", False),
        ("org/name:Q4\n", False),
    ],
)
def test_a_reference_is_told_from_a_path(model: str, reference: bool) -> None:
    assert is_reference(model) is reference


def test_no_model_at_all_is_router_mode(config: Config) -> None:
    assert options(config, {"ctx_size": 1}).is_router
    for source in ({"model": "m"}, {"hf_repo": "a/b"}, {"gpt_oss_20b_default": True}):
        assert not options(config, source).is_router
