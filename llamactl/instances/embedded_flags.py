"""Which of llama-server's flags the embedded llama.cpp honours, and where they go.

A line is: the flag, the attribute of ``xllamacpp.CommonParams``, and how its value is turned. The
documentation lists this table, and the command line is held to it. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from llamactl.errors import InvalidRequest, UnsupportedFlag
from llamactl.instances import values
from llamactl.instances.commandline import Given, read_flags, unknown_flag
from llamactl.instances.flags import Flag
from llamactl.instances.hints import HOW_TO_INSTALL

_TABLE = """
threads                 cpuparams.n_threads
threads-batch           cpuparams_batch.n_threads
poll                    cpuparams.poll
ctx-size                n_ctx
predict                 n_predict
batch-size              n_batch
ubatch-size             n_ubatch
keep                    n_keep
swa-full                swa_full
flash-attn              flash_attn_type         flash_attention
perf                    no_perf                 not
escape                  escape
rope-scaling            rope_scaling_type       LLAMA_ROPE_SCALING_TYPE
rope-scale              rope_freq_scale         inverse
rope-freq-base          rope_freq_base
rope-freq-scale         rope_freq_scale
yarn-orig-ctx           yarn_orig_ctx
yarn-ext-factor         yarn_ext_factor
yarn-attn-factor        yarn_attn_factor
yarn-beta-slow          yarn_beta_slow
yarn-beta-fast          yarn_beta_fast
kv-offload              no_kv_offload           not
repack                  no_extra_bufts          not
no-host                 no_host
cache-type-k            cache_type_k            GGML_TYPE
cache-type-v            cache_type_v            GGML_TYPE
load-mode               load_mode               load_mode
lazy-mode               lazy_mode               LLAMA_LAZY_MODE
mmap                    load_mode               mmap
mlock                   load_mode               mlock
numa                    numa                    GGML_NUMA_STRATEGY
gpu-layers              n_gpu_layers            layers
split-mode              split_mode              LLAMA_SPLIT_MODE
main-gpu                main_gpu
fit                     fit_params              on
fit-ctx                 fit_params_min_ctx
check-tensors           check_tensors
op-offload              no_op_offload           not
lora                    lora_adapters           adapters
lora-scaled             lora_adapters           scaled_adapters
lora-init-without-apply lora_init_without_apply
model                   model.path
offline                 offline
log-jsonl               log_json
verbosity               verbosity
verbose                 verbosity               everything
samplers                sampling.samplers
seed                    sampling.seed           seed
ignore-eos              sampling.ignore_eos
temp                    sampling.temp
top-k                   sampling.top_k
top-p                   sampling.top_p
min-p                   sampling.min_p
xtc-probability         sampling.xtc_probability
xtc-threshold           sampling.xtc_threshold
typical                 sampling.typ_p
repeat-last-n           sampling.penalty_last_n
repeat-penalty          sampling.penalty_repeat
presence-penalty        sampling.penalty_present
frequency-penalty       sampling.penalty_freq
dry-multiplier          sampling.dry_multiplier
dry-base                sampling.dry_base
dry-allowed-length      sampling.dry_allowed_length
dry-penalty-last-n      sampling.dry_penalty_last_n
adaptive-target         sampling.adaptive_target
adaptive-decay          sampling.adaptive_decay
dynatemp-range          sampling.dynatemp_range
dynatemp-exp            sampling.dynatemp_exponent
mirostat                sampling.mirostat
mirostat-lr             sampling.mirostat_eta
mirostat-ent            sampling.mirostat_tau
reasoning-budget        sampling.reasoning_budget_tokens
alias                   model_alias             set
tags                    model_tags              set
host                    hostnames               list
port                    port
api-key                 api_keys                keys
threads-http            n_threads_http
timeout                 timeout_read,timeout_write
sse-ping-interval       sse_ping_interval
cache-prompt            cache_prompt
cache-reuse             n_cache_reuse
cache-ram               cache_ram_mib
cache-idle-slots        cache_idle_slots
metrics                 endpoint_metrics
props                   endpoint_props
slots                   endpoint_slots
slot-prompt-similarity  slot_prompt_similarity
slot-save-path          slot_save_path
media-path              media_path
sleep-idle-seconds      sleep_idle_seconds
jinja                   use_jinja
chat-template           chat_template
chat-template-file      chat_template           file
chat-template-kwargs    default_template_kwargs kwargs
reasoning               enable_reasoning        reasoning
reasoning-format        reasoning_format        COMMON_REASONING_FORMAT
skip-chat-parsing       force_pure_content_parser
prefill-assistant       prefill_assistant
embedding               embedding
embd-normalize          embd_normalize
pooling                 pooling_type            LLAMA_POOLING_TYPE
attention               attention_type          LLAMA_ATTENTION_TYPE
reranking               embedding,pooling_type  reranking
parallel                n_parallel
cont-batching           cont_batching
kv-unified              kv_unified
kv-unified-per-slot     kv_unified_per_slot
ctx-checkpoints         n_ctx_checkpoints
checkpoint-min-step     checkpoint_min_step
context-shift           ctx_shift
warmup                  warmup
special                 special
mmproj                  mmproj.path
mmproj-auto             no_mmproj               not
mmproj-offload          mmproj_use_gpu
image-min-tokens        image_min_tokens
image-max-tokens        image_max_tokens
mtmd-batch-max-tokens   mtmd_batch_max_tokens
ui                      ui
ui-config               ui_config_json
cors-origins            cors_origins            joined
cors-methods            cors_methods            joined
cors-headers            cors_headers            joined
cors-credentials        cors_credentials
"""

#: Between what the embedded llama.cpp can do instead and how to get the other one.
_FULL_ONE = "The full llama-server can do without that."

#: What to do instead, for flags that people will try.
_INSTEAD = {
    "hf-repo": "Download the model with llamactl and give it as `model: org/name:tag`.",
    "model-url": "Download the model with llamactl and give it as `model: org/name:tag`.",
    "docker-repo": "Download the model with llamactl and give it as `model: org/name:tag`.",
    "models-dir": "Make one instance for each model.",
    "models-preset": "Make one instance for each model.",
}


@dataclass(frozen=True)
class EmbeddedFlag:
    """``targets`` are attributes of CommonParams; ``turn`` names how the value becomes theirs."""

    name: str
    targets: tuple[str, ...]
    turn: str


def _read_line(line: str) -> EmbeddedFlag:
    name, targets, *turn = line.split()
    return EmbeddedFlag(name, tuple(targets.split(",")), turn[0] if turn else "same")


EMBEDDED_FLAGS = {
    flag.name: flag for flag in (_read_line(line) for line in _TABLE.strip().splitlines())
}


@dataclass(frozen=True)
class Setting:
    """One flag that was given, with its value by the flag's kind."""

    flag: EmbeddedFlag
    value: Any


def read_settings(words: Sequence[str]) -> list[Setting]:
    """The settings that a llama-server command line makes.

    Raises ``UnsupportedFlag`` naming the first flag that the embedded llama.cpp cannot honour, and
    ``InvalidRequest`` for what no llama-server would take.
    """
    settings = [_setting(given) for given in read_flags(words)]
    if not any(setting.flag.name == "model" for setting in settings):
        raise UnsupportedFlag(
            "without a model llama-server is a router, and the embedded llama.cpp has none",
            hint=f"Give a model. {_FULL_ONE} {HOW_TO_INSTALL}",
        )
    return settings


def check_embedded(words: Sequence[str]) -> None:
    """Raise what ``read_settings`` would."""
    read_settings(words)


def _setting(given: Given) -> Setting:
    flag = given.flag
    if flag is None:
        raise UnsupportedFlag(
            f"the embedded llama.cpp cannot take {given.spelled}: {unknown_flag(given.spelled)}",
            hint=HOW_TO_INSTALL,
        )
    if flag.name not in EMBEDDED_FLAGS:
        instead = f"{_INSTEAD[flag.name]} {_FULL_ONE}" if flag.name in _INSTEAD else ""
        raise UnsupportedFlag(
            f"the embedded llama.cpp cannot take {given.spelled}",
            hint=f"{instead} {HOW_TO_INSTALL}".strip(),
            field=flag.key,
        )
    return Setting(EMBEDDED_FLAGS[flag.name], _value(flag, given))


def _value(flag: Flag, given: Given) -> Any:
    if flag.values == 0:
        return not given.negated
    raw: Any = given.values[0]
    if flag.kind in ("commas", "paths"):
        raw = raw.split(",")
    return values.flag_value(flag, raw, given.spelled)


def words_of(turn: str, value: Any, constant: Callable[[str], Any]) -> Any:
    """A value as CommonParams wants it. ``constant`` finds one of llama.cpp's by its name."""
    if turn.isupper():
        return constant(f"{turn}_{str(value).upper().replace('-', '_')}")
    return _TURNS[turn](value, constant)


def _mode(name: str) -> str:
    known = {"dio": "DIRECT_IO", "mmap+mlock": "MMAP_MLOCK"}
    return "LLAMA_LOAD_MODE_" + known.get(name, name.upper())


def _layers(value: Any) -> int:
    if isinstance(value, int):
        return value
    if value not in ("auto", "all"):
        raise InvalidRequest(f"--gpu-layers: {value!r} is no number, nor auto, nor all")
    return -1 if value == "auto" else 9999


def _flash_attention(value: Any) -> str:
    word = {"on": "ENABLED", "1": "ENABLED", "off": "DISABLED", "0": "DISABLED", "auto": "AUTO"}
    if str(value) not in word:
        raise InvalidRequest(f"--flash-attn: {value!r} is not on, off or auto")
    return "LLAMA_FLASH_ATTN_TYPE_" + word[str(value)]


def _on(value: Any) -> bool:
    return values.boolean(str(value), "--fit")


def _kwargs(value: str) -> dict[str, str]:
    try:
        given = json.loads(value)
    except ValueError as error:
        raise InvalidRequest(f"--chat-template-kwargs is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise InvalidRequest("--chat-template-kwargs must be a JSON object")
    return {key: json.dumps(item) for key, item in given.items()}


_TURNS: dict[str, Callable[[Any, Callable[[str], Any]], Any]] = {
    "same": lambda value, _: value,
    "not": lambda value, _: not value,
    "inverse": lambda value, _: 1.0 / value if value else 0.0,
    "layers": lambda value, _: _layers(value),
    "on": lambda value, _: _on(value),
    "seed": lambda value, _: value % 2**32,
    "everything": lambda _value, _: 99,
    "set": lambda value, _: set(value),
    "list": lambda value, _: value.split(","),
    "joined": lambda value, _: ",".join(value),
    "keys": lambda value, _: [key for key in value.split(",") if key],
    "kwargs": lambda value, _: _kwargs(value),
    "reasoning": lambda value, _: {"on": 1, "off": 0}.get(str(value), -1),
    "flash_attention": lambda value, constant: constant(_flash_attention(value)),
    "load_mode": lambda value, constant: constant(_mode(value)),
    "mmap": lambda value, constant: constant(_mode("mmap" if value else "none")),
    "mlock": lambda _value, constant: constant(_mode("mmap+mlock")),
}


def documented() -> Iterator[tuple[str, str]]:
    """Each flag and where it goes, for the documentation."""
    for flag in EMBEDDED_FLAGS.values():
        yield f"--{flag.name}", ", ".join(flag.targets)
