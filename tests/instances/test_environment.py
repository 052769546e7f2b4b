from __future__ import annotations

from typing import Any

from llamactl.config import Config
from llamactl.instances.environment import child_environment
from llamactl.instances.options import Options
from llamactl.secret import Secret
from tests.conftest import ConfigFactory

INHERITED = {
    "PATH": "/usr/bin",
    "HOME": "/home/me",
    "LANG": "C.UTF-8",
    "CUDA_VISIBLE_DEVICES": "1",
    "LD_LIBRARY_PATH": "/opt/cuda/lib",
    "LLAMACTL_MANAGEMENT_KEYS": "top secret",
    "LLAMACTL_RUN": "another",
    "LLAMA_API_KEY": "another",
    "LLAMA_ARG_TOOLS": "all",
    "LLAMA_CACHE": "/flat",
    "HF_TOKEN": "hf_secret",
    "HF_TOKEN_PATH": "/token",
    "HUGGING_FACE_HUB_TOKEN": "hf_secret",
    "HF_ENDPOINT": "https://mirror",
    "AIP_HTTP_PORT": "80",
}


def built(config: Config, **options: Any) -> dict[str, str]:
    token = Secret("hf_from_llamactl")
    parsed = Options.from_json(options, config)
    return child_environment(INHERITED, config, parsed, Secret("child-key"), token)


def test_the_servers_own_variables_arrive_less_its_secrets(config: Config) -> None:
    environment = built(config, backend_options={"model": "m"})
    for name in ("PATH", "HOME", "LANG", "CUDA_VISIBLE_DEVICES", "LD_LIBRARY_PATH"):
        assert environment[name] == INHERITED[name]
    assert set(environment) - set(INHERITED) == {"HF_HUB_CACHE"}
    assert not any("secret" in value or value == "another" for value in environment.values())
    for name in ("LLAMA_ARG_TOOLS", "AIP_HTTP_PORT", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT"):
        assert name not in environment


def test_only_what_reads_the_hub_gets_the_token_and_the_mirror(config: Config) -> None:
    environment = built(config, backend_options={"hf_repo": "org/name"})
    assert environment["HF_TOKEN"] == "hf_from_llamactl"
    assert environment["HF_ENDPOINT"] == config.hub.endpoint
    assert "HF_TOKEN" not in built(config)


def test_everybody_finds_what_llamactl_downloaded(config: Config) -> None:
    for options in ({}, {"hf_repo": "org/name"}):
        environment = built(config, backend_options=options)
        assert environment["HF_HUB_CACHE"] == str(config.llama_cpp.hub_dir)
        assert "LLAMA_CACHE" not in environment


def test_the_child_gets_its_own_key_whatever_was_configured(make_config: ConfigFactory) -> None:
    config = make_config(
        {"backends.llama-cpp.environment": {"LLAMA_API_KEY": "configured", "A": "1", "B": "1"}}
    )
    environment = built(config, environment={"B": "2"})
    assert environment["LLAMA_API_KEY"] == "child-key"
    assert (environment["A"], environment["B"]) == ("1", "2")


def test_a_secret_does_not_arrive_under_the_name_that_the_configuration_took_it_from(
    make_config: ConfigFactory,
) -> None:
    key = "k" * 40
    config = make_config({"auth.management_keys": [key], "auth.metrics_key": "m" * 40})
    inherited = {"ADMIN_KEY": key, "SCRAPE_KEY": "m" * 40, "MY_HUB": "hf_one", "OTHER": "o"}
    environment = child_environment(
        inherited, config, Options(), Secret("child-key"), Secret("hf_one")
    )
    assert set(inherited) & set(environment) == {"OTHER"}
