from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llamactl.config import Config
from llamactl.errors import InvalidRequest
from llamactl.instances.commandline import (
    Launch,
    arguments,
    left_out,
    missing_flags,
    parse_command,
    shown,
)
from llamactl.instances.flags import FLAGS, RESERVED, lookup
from llamactl.instances.options import Options

LAUNCH = Launch("127.0.0.1", 8123)


def words(config: Config, given: dict[str, Any], launch: Launch = LAUNCH) -> list[str]:
    options = Options.from_json({"backend_options": given}, config)
    return arguments(options, "one", launch, lambda path: path.replace("~", "/home/me"))


def test_address_and_port_come_last_so_that_nothing_takes_them_from_us(config: Config) -> None:
    built = words(config, {"model": "m.gguf", "extra_args": {"--new": "x"}})
    assert built[-4:] == ["--host", "127.0.0.1", "--port", "8123"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"ctx_size": 4096}, ["--ctx-size", "4096"]),
        ({"temp": 0.7}, ["--temp", "0.7"]),
        ({"temp": 1.0}, ["--temp", "1"]),
        ({"jinja": True}, ["--jinja"]),
        ({"jinja": False}, ["--no-jinja"]),
        ({"mmproj_auto": False}, ["--no-mmproj"]),
        ({"metrics": True}, ["--metrics"]),
        ({"metrics": False}, []),
        ({"flash_attn": True}, ["--flash-attn", "on"]),
        ({"gpu_layers": "auto"}, ["--gpu-layers", "auto"]),
        ({"tensor_split": ["3", "1"]}, ["--tensor-split", "3,1"]),
        ({"lora": ["~/a", "/b"]}, ["--lora", "/home/me/a", "--lora", "/b"]),
        ({"dry_sequence_breaker": ["a", "b"]}, ["--dry-sequence-breaker", "a"]),
        ({"control_vector_layer_range": [1, 9]}, ["--control-vector-layer-range", "1", "9"]),
        ({"extra_args": {"new": None}}, ["--new"]),
        ({"extra_args": {"new": False}}, []),
        ({"extra_args": {"-x": 5}}, ["-x", "5"]),
        ({"extra_args": {"new_flag": ["a", "b"]}}, ["--new-flag", "a", "--new-flag", "b"]),
    ],
)
def test_each_kind_of_flag_is_written_in_llama_cpps_own_way(
    config: Config, given: dict[str, Any], expected: list[str]
) -> None:
    built = words(config, {"hf_repo": "a/b", **given})
    text = "\0".join(["", *built, ""])
    assert "\0".join(["", *expected, ""]) in text if expected else "metrics" not in text


def test_paths_are_expanded_and_the_resolved_model_stands_for_the_reference(
    config: Config,
) -> None:
    launch = Launch("127.0.0.1", 1, model="/cache/m.gguf", mmproj="/cache/p.gguf")
    built = words(config, {"model": "org/name:Q4"}, launch)
    assert built[:2] == ["--model", "/cache/m.gguf"] and "org/name:Q4" not in built
    assert built[built.index("--mmproj") + 1] == "/cache/p.gguf"


def test_answers_carry_the_instances_name_unless_another_alias_was_chosen(config: Config) -> None:
    assert words(config, {"model": "m"})[2:4] == ["--alias", "one"]
    assert words(config, {"model": "m", "alias": ["a", "b"]})[2:4] == ["--alias", "a,b"]


def test_a_router_has_no_alias_and_its_preset(config: Config) -> None:
    built = words(config, {}, Launch("127.0.0.1", 1, models_preset="/p.ini"))
    assert built == ["--models-preset", "/p.ini", "--host", "127.0.0.1", "--port", "1"]


def test_a_pasted_command_becomes_options_that_write_it_again(config: Config) -> None:
    pasted = (
        "CUDA_VISIBLE_DEVICES=0 /usr/bin/llama-server -m '/my models/a.gguf' -c 8192 \\\n"
        "  -ngl 99 --no-mmap -fa on -np 4 --host 0.0.0.0 --port 80 --api-key secret "
        "--lora a.gguf,b.gguf --brand-new x y -s -1"
    )
    parsed = parse_command(pasted)
    assert parsed == {
        "backend_type": "llama_cpp",
        "backend_options": {
            "model": "/my models/a.gguf",
            "ctx_size": "8192",
            "gpu_layers": "99",
            "mmap": False,
            "flash_attn": "on",
            "parallel": "4",
            "lora": ["a.gguf", "b.gguf"],
            "seed": "-1",
            "extra_args": {"--brand-new": ["x", "y"]},
        },
        "environment": {"CUDA_VISIBLE_DEVICES": "0"},
    }
    options = Options.from_json(parsed, config)
    built = arguments(options, "one", LAUNCH, str)
    assert "secret" not in built and "0.0.0.0" not in built
    assert built[built.index("--gpu-layers") + 1] == "99"
    again = Options.from_json(parse_command(shown(["llama-server", *built])), config)
    assert again.backend_options == {**options.backend_options, "alias": ("one",)}


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        ("", "no llama-server"),
        ("rm -rf /", "no llama-server"),
        ("llama-server -m", "wants a value"),
        ("llama-server model.gguf", "belongs to no flag"),
        ("llama-server -m 'a", "cannot be read"),
        ("llama-server -m a; rm -rf /", "begins|belongs"),
    ],
)
def test_what_is_no_llama_server_command_is_refused(command: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_command(command)
    assert any(part in caught.value.message for part in complaint.split("|"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("-hf org/name:Q4_K_M -c 0", {"hf_repo": "org/name:Q4_K_M", "ctx_size": "0"}),
        ("\\\n  -m a.gguf \\\r\n -np 2", {"model": "a.gguf", "parallel": "2"}),
        ("# the server\n  -m a.gguf # its model\n  # -c 1\n", {"model": "a.gguf"}),
        ("-m model#1.gguf", {"model": "model#1.gguf"}),
        ("-m 'it'\"'\"'s.gguf'", {"model": "it's.gguf"}),
        ("-m 'two \\\nlines.gguf'", {"model": "two \\\nlines.gguf"}),
        ("-j '{\"a\": 1}'", {"json_schema": '{"a": 1}'}),
        ('-m "a \\"b\\" c.gguf"', {"model": 'a "b" c.gguf'}),
        (r"-m my\ model.gguf", {"model": "my model.gguf"}),
        ("-m C:\\models\\a.gguf ^\n -c 9", {"model": "C:\\models\\a.gguf", "ctx_size": "9"}),
        (
            '-m "C:\\My Models\\a.gguf" `\n -c 9',
            {"model": "C:\\My Models\\a.gguf", "ctx_size": "9"},
        ),
        ("-fa -m a.gguf", {"flash_attn": "on", "model": "a.gguf"}),
        ("-m a.gguf -fa", {"flash_attn": "on", "model": "a.gguf"}),
        ("-fa auto --predict -2", {"flash_attn": "auto", "predict": "-2"}),
        ("--bias -0.5 --odd", {"extra_args": {"--bias": "-0.5", "--odd": True}}),
        ("--no-mmap --mlock -nkvo", {"mmap": False, "mlock": True, "kv_offload": False}),
    ],
)
def test_a_line_is_read_as_a_shell_would(
    config: Config, flags: str, expected: dict[str, Any]
) -> None:
    parsed = parse_command(f"llama-server {flags}")
    assert parsed["backend_options"] == expected
    Options.from_json(parsed, config)


@pytest.mark.parametrize(
    "program",
    [
        "$ ./build/bin/llama-server",
        ".\\Llama-Server.EXE",
        "& 'C:\\Program Files\\llama\\llama-server.exe'",
        "llama serve",
        "nohup llama-server",
    ],
)
def test_the_program_may_be_called_in_many_ways(program: str) -> None:
    assert parse_command(f"{program} -m a.gguf &")["backend_options"] == {"model": "a.gguf"}


def test_variables_in_front_become_the_environment() -> None:
    parsed = parse_command("env CUDA_VISIBLE_DEVICES=1 A='b c' nohup llama-server -m a.gguf")
    assert parsed["environment"] == {"CUDA_VISIBLE_DEVICES": "1", "A": "b c"}


@pytest.mark.parametrize(
    "command",
    [
        "llama-server -m a.gguf --tools all",
        "llama-server -m a.gguf --models-dir /",
        "LLAMA_ARG_TOOLS=all llama-server -m a.gguf",
        "LD_PRELOAD=/tmp/x.so llama-server -m a.gguf",
        "llama-server -m a.gguf --chat-template-file /etc/passwd",
    ],
)
def test_a_pasted_line_is_no_way_around_the_switches(config: Config, command: str) -> None:
    with pytest.raises(InvalidRequest, match=r"reach|must end in|can change") as caught:
        Options.from_json(parse_command(command), config)
    assert "security.allow_dangerous" in caught.value.hint


_text = st.text(st.characters(codec="utf-8", exclude_characters="\0,"), min_size=1, max_size=20)
_plain = _text.filter(lambda text: not text.startswith("-") and text.strip() != "")
_file = _plain.map(lambda text: f"/{text}.gguf")
_kinds: dict[str, st.SearchStrategy[Any]] = {
    "switch": st.just(True),
    "toggle": st.booleans(),
    "int": st.integers(-(2**31), 2**31),
    "float": st.floats(-1e6, 1e6),
    "text": _plain,
    "path": _file,
    "words": st.one_of(st.integers(-5, 99), st.sampled_from(["auto", "all", "on", "off"])),
    "commas": st.lists(_plain, min_size=1, max_size=3),
    "many": st.lists(_plain, min_size=1, max_size=3),
    "paths": st.lists(_file, min_size=1, max_size=3),
    "pair": st.tuples(st.integers(0, 99), st.integers(0, 99)).map(list),
}
_chosen = st.lists(
    st.sampled_from([flag for flag in FLAGS if flag.name not in RESERVED]).flatmap(
        lambda flag: st.tuples(st.just(flag.key), _kinds[flag.kind])
    ),
    max_size=6,
).map(dict)


# Nothing changes the fixture.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    chosen=_chosen,
    extra=st.dictionaries(st.from_regex("--zz-[a-z]{1,8}", fullmatch=True), _plain),
)
def test_options_come_back_from_the_line_that_they_make(
    config: Config, chosen: dict[str, Any], extra: dict[str, str]
) -> None:
    given_options = Options.parse(
        {"backend_options": {"model": "/m.gguf", "alias": ["x"], **chosen, "extra_args": extra}},
        config,
    )
    line = shown(["llama-server", *arguments(given_options, "one", LAUNCH, str)])
    again = Options.parse(parse_command(line), config)
    assert (again.backend_options, again.extra_args) == (
        given_options.backend_options,
        given_options.extra_args,
    )


def test_a_command_line_is_shown_as_one_can_paste_it() -> None:
    assert shown(["a b", "--x", "it's"], {"A": "b c"}) == "A='b c' 'a b' --x 'it'\"'\"'s'"


def test_names_of_flags_are_told_apart_by_case() -> None:
    small, large = lookup("-c"), lookup("-C")
    assert small is not None and small[0].name == "ctx-size"
    assert large is not None and large[0].name == "cpu-mask"


def test_no_name_means_two_flags() -> None:
    names = [name for flag in FLAGS for name in (flag.name, *flag.aliases, flag.off) if name]
    assert len(names) == len(set(names))


def test_a_flag_is_spelled_as_the_program_knows_it(config: Config) -> None:
    given = {"model": "m", "no_webui": True, "kv_unified": True, "no_mmap": True, "draft_max": 4}
    options = Options.from_json({"backend_options": given}, config)
    new = frozenset({"--model", "--no-ui", "-kvu", "--load-mode", "--spec-draft-n-max"})
    built = arguments(options, "one", LAUNCH, str, new)
    assert built[2:8] == ["--no-ui", "-kvu", "--load-mode", "none", "--spec-draft-n-max", "4"]
    old = frozenset({"--model", "--no-webui", "--kv-unified", "--no-mmap", "--draft-max"})
    built = arguments(options, "one", LAUNCH, str, old)
    assert built[2:7] == ["--no-webui", "--kv-unified", "--no-mmap", "--draft-max", "4"]
    assert not list(missing_flags(options, new)) and not list(missing_flags(options, old))


def test_flags_that_the_program_does_not_have_are_found(config: Config) -> None:
    given = {"model": "m", "swa_full": True, "metrics": False, "extra_args": {"--odd": 1}}
    options = Options.from_json({"backend_options": given}, config)
    assert list(missing_flags(options, frozenset({"--model"}))) == [
        ("backend_options.swa_full", "--swa-full"),
        ("backend_options.extra_args.--odd", "--odd"),
    ]


def test_what_a_pasted_line_has_that_llamactl_decides_itself_is_named() -> None:
    line = "llama-server -m a.gguf --host 0.0.0.0 --port=1 --api-key secret --frobnicate 3"
    told = left_out(line.replace("=", " "))
    assert list(told) == ["--host", "--port", "--api-key"]
    assert told["--port"] == "llamactl finds a free port by itself"
    assert "secret" not in str(told)


def test_a_line_that_no_system_would_run_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidRequest, match="more than 100,000 characters"):
        parse_command("llama-server -m " + "a" * 1_000_000)
    assert parse_command('llama-server --alias ""')["backend_options"] == {"alias": [""]}
    longest = "a" * 99_000
    assert parse_command(f"llama-server -m {longest}")["backend_options"] == {"model": longest}
