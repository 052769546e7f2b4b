"""What a configuration is made of, and how a bad one is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from llamactl.config import Config, load_config
from llamactl.errors import ConfigError
from llamactl.settings import SETTINGS


def load(tmp_path: Path, text: str | None = None, **environ: str) -> Config:
    file = None
    if text is not None:
        file = tmp_path / "llamactl.yaml"
        file.write_text(text, encoding="utf-8")
    return load_config(file, environ={"HOME": str(tmp_path), **environ})


def refusal(tmp_path: Path, text: str | None = None, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, **environ)
    return caught.value.details


def test_defaults_are_those_of_the_documentation(tmp_path: Path) -> None:
    config = load(tmp_path)
    assert (config.server.host, config.server.port) == ("127.0.0.1", 8080)
    assert config.data_dir == tmp_path / ".local/share/llamactl"
    assert config.llama_cpp.cache_dir == tmp_path / ".cache/llama.cpp"
    assert config.llama_cpp.hub_dir == tmp_path / ".cache/huggingface/hub"
    assert config.instances.logs_dir == config.data_dir / "logs"
    assert config.instances.port_range == (8000, 9000)
    assert config.gateway.max_streams == 240
    assert config.auth.require_management_auth
    assert config.hub.endpoint == "https://huggingface.co"


def test_every_setting_has_its_place_in_the_configuration(tmp_path: Path) -> None:
    config = load(tmp_path)
    for setting in SETTINGS:
        owner: object = config
        for part in setting.name.replace("backends.llama-cpp", "llama_cpp").split("."):
            assert hasattr(owner, part), setting.name
            owner = getattr(owner, part)
        assert setting.help.endswith("."), setting.name
    assert len({setting.name for setting in SETTINGS}) == len(SETTINGS)
    variables = [variable for setting in SETTINGS for variable in setting.variables]
    assert len(set(variables)) == len(variables)


def test_configuration_is_frozen(tmp_path: Path) -> None:
    config = load(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.server.port = 1  # type: ignore[misc]  # that it is refused is what is shown


def test_the_later_source_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LLAMACTL_PORT=1001\nLLAMACTL_HOST=127.0.0.2\n")
    text = "server: {port: 1002}\n"
    assert load(tmp_path, text).server.port == 1002
    file = tmp_path / "llamactl.yaml"
    environ = {"HOME": str(tmp_path), "LLAMACTL_PORT": "1003"}
    assert load_config(file, environ=environ).server.port == 1003
    assert load_config(file, environ=environ).server.host == "127.0.0.2"
    assert load_config(file, environ, {"server.port": 1004}).server.port == 1004


def test_a_dotenv_counts_beside_the_file_in_use_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "somebody's project"
    folder.mkdir()
    (folder / ".env").write_text("LLAMACTL_PORT=1001\nHF_ENDPOINT=http://127.0.0.1:9\n")
    monkeypatch.chdir(folder)
    config = load(tmp_path)
    assert (config.server.port, config.hub.endpoint) == (8080, "https://huggingface.co")
    (folder / "llamactl.yaml").write_text("server: {threads: 30}\n")
    config = load(tmp_path)
    assert (config.server.port, config.hub.endpoint) == (1001, "http://127.0.0.1:9")


@pytest.mark.parametrize("section", ["llama-cpp", "llama_cpp"])
def test_hyphens_and_underscores_are_equal_in_keys(tmp_path: Path, section: str) -> None:
    config = load(
        tmp_path, f"backends:\n  {section}:\n    cache_dir: ~/models\n    hub-dir: /hub\n"
    )
    assert config.llama_cpp.cache_dir == tmp_path / "models"
    assert config.llama_cpp.hub_dir == Path("/hub")


@pytest.mark.parametrize(
    ("variable", "value", "name", "expected"),
    [
        ("LLAMACTL_DOWNLOADS_MAX_CONCURRENT", "5", "downloads.max_concurrent", 5),
        ("LLAMACTL_INSTANCE_PORT_RANGE", "9000-9100", "instances.port_range", (9000, 9100)),
        ("LLAMACTL_DEFAULT_IDLE_TIMEOUT", "0.5", "instances.default_idle_timeout", 0.5),
        ("LLAMACTL_LLAMACPP_ARGS", "--threads 2", "llama_cpp.args", ("--threads", "2")),
        ("LLAMACTL_LLAMACPP_ENV", "A=1,B=x y", "llama_cpp.environment", {"A": "1", "B": "x y"}),
        ("LLAMACTL_DOWNLOADS_BANDWIDTH_LIMIT", "20MB", "downloads.bandwidth_limit", 20_000_000),
        ("LLAMACTL_DOWNLOADS_MIN_FREE_SPACE", "2GiB", "downloads.min_free_space", 2**31),
        ("LLAMACTL_GROUP_LIMITS", '{"small": 2}', "instances.group_limits", {"small": 2}),
        ("LLAMACTL_URL_PREFIX", "/llm/", "server.url_prefix", "/llm"),
    ],
)
def test_variables_are_read(
    tmp_path: Path, variable: str, value: str, name: str, expected: object
) -> None:
    found: object = load(tmp_path, **{variable: value})
    for part in name.split("."):
        found = getattr(found, part)
    assert found == expected


def test_the_specific_cache_variable_beats_the_file_and_the_file_beats_llama_cache(
    tmp_path: Path,
) -> None:
    text = "backends: {llama-cpp: {cache_dir: /from-file}}\n"
    assert load(tmp_path, LLAMA_CACHE="/a").llama_cpp.cache_dir == Path("/a")
    assert load(tmp_path, LLAMA_CACHE="/a").llama_cpp.hub_dir == Path("/a")
    assert load(tmp_path, text, LLAMA_CACHE="/a").llama_cpp.cache_dir == Path("/from-file")
    config = load(tmp_path, text, LLAMA_CACHE="/a", LLAMACTL_LLAMACPP_CACHE_DIR="/b")
    assert config.llama_cpp.cache_dir == Path("/b")


def test_variables_in_the_file_are_expanded(tmp_path: Path) -> None:
    text = "data_dir: ${BASE}/data\nserver: {host: '${ADDRESS:-127.0.0.3}'}\n"
    config = load(tmp_path, text, BASE="/srv")
    assert config.data_dir == Path("/srv/data")
    assert config.server.host == "127.0.0.3"
    text = "backends: {llama-cpp: {args: ['--alias', '${NAME}'], environment: {A: '${BASE}/x'}}}\n"
    config = load(tmp_path, text, BASE="/srv", NAME="big")
    assert config.llama_cpp.args == ("--alias", "big")
    assert config.llama_cpp.environment == {"A": "/srv/x"}
    assert load(tmp_path, LLAMACTL_HOST="${OURS}", OURS="127.0.0.4").server.host == "127.0.0.4"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("server:\n  port: many\n", 2, "server.port: must be a whole number"),
        ("server:\n  port: 70000\n", 2, "server.port: must lie between 0 and 65535"),
        ("server:\n  prot: 1\n", 2, "server.prot is not a setting. Did you mean server.port?"),
        ("server:\n  port: 1\n  port: 2\n", 3, "server.port is given twice"),
        ("server: [1]\n", 1, "server must be a mapping"),
        ("a: [\n", 2, ""),
        ("auth:\n  management_keys: [short]\n", 2, "at least 32 characters"),
        ("data_dir: ${NOT_SET}/x\n", 1, "the variable NOT_SET is not set"),
        ("auth:\n  management_keys: ['${NOT_SET}']\n", 2, "the variable NOT_SET is not set"),
        ("downloads:\n  bandwidth_limit: fast\n", 2, "number of bytes"),
        ("instances:\n  port_range: [9, 5]\n", 2, "smaller port"),
        ("server:\n  threads: true\n", 2, "must be a number"),
        ("server:\n  allowed_origins: ['*']\n", 2, "is not an origin"),
    ],
)
def test_a_bad_file_is_refused_with_file_line_and_key(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    details = refusal(tmp_path, text)
    assert details.startswith(f"{tmp_path / 'llamactl.yaml'}:{line}:")
    assert words in details


def test_a_bad_variable_is_refused_by_its_name(tmp_path: Path) -> None:
    assert "LLAMACTL_PORT: must be a whole number" in refusal(tmp_path, LLAMACTL_PORT="x")
    assert "Did you mean LLAMACTL_PORT?" in refusal(tmp_path, LLAMACTL_PROT="1")
    unset = refusal(tmp_path, LLAMACTL_HOST="${NOT_SET}")
    assert unset.startswith("environment: LLAMACTL_HOST: the variable NOT_SET is not set")
    assert "HF_ENDPOINT" in refusal(tmp_path, HF_ENDPOINT="ftp://x")
    assert "user name" in refusal(tmp_path, HF_ENDPOINT="https://me:pass@mirror.example")
    assert "HF_TOKEN" in refusal(tmp_path, HF_TOKEN="two words")


def test_a_bind_beyond_loopback_without_authentication_is_refused(tmp_path: Path) -> None:
    open_server = {"LLAMACTL_HOST": "0.0.0.0", "LLAMACTL_REQUIRE_INFERENCE_AUTH": "false"}
    assert "reachable from other machines" in refusal(tmp_path, **open_server)
    by_name = {**open_server, "LLAMACTL_HOST": "gpu-box.lan"}
    assert "gpu-box.lan is reachable from other machines" in refusal(tmp_path, **by_name)
    assert load(tmp_path, **{**open_server, "LLAMACTL_HOST": "localhost"})
    allowed = load(tmp_path, **open_server, LLAMACTL_SECURITY_ALLOW_INSECURE_BIND="true")
    assert allowed.server.host == "0.0.0.0"
    assert load(tmp_path, LLAMACTL_HOST="0.0.0.0").server.host == "0.0.0.0"
    assert not load(tmp_path, LLAMACTL_REQUIRE_INFERENCE_AUTH="no").auth.require_inference_auth


def test_a_configuration_file_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(tmp_path / "absent.yaml", environ={"HOME": str(tmp_path)})
    assert "absent" in refusal(tmp_path, LLAMACTL_CONFIG_PATH=str(tmp_path / "absent.yaml"))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "bad.yaml", environ={"HOME": str(tmp_path)})


def test_secrets_do_not_show_in_the_configuration(tmp_path: Path) -> None:
    key, token = "k" * 40, "hf_" + "t" * 34
    config = load(tmp_path, LLAMACTL_MANAGEMENT_KEYS=key, HF_TOKEN=token)
    assert config.auth.management_keys[0].reveal() == key
    assert config.hub.token is not None and config.hub.token.reveal() == token
    assert key not in repr(config) and token not in repr(config)
