"""llama-server's flags as a table: their kinds, their other names, which are ours, which dangerous.

A line is: kind, canonical name, other spellings, the short ones with their dash. ``!name`` switches
a toggle off; every toggle has ``!no-NAME`` besides. Kinds: ``switch`` (present or absent),
``toggle`` (on, off or left alone), ``int``, ``float``, ``text``, ``path``, ``words`` (a number or a
word such as auto; true and false mean on and off), ``commas`` (a list in one value), ``many`` (the
flag once for each value), ``paths`` (the same with paths), ``pair`` (two values). The names are
those of llama.cpp b11434 and the ones that builds before it used.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

_TABLE = """
int     threads                 -t
int     threads-batch           -tb
text    cpu-mask                -C
text    cpu-range               -Cr
int     cpu-strict
int     prio
int     poll
text    cpu-mask-batch          -Cb
text    cpu-range-batch         -Crb
int     cpu-strict-batch
int     prio-batch
int     poll-batch
int     ctx-size                -c
int     predict                 -n n-predict
int     batch-size              -b
int     ubatch-size             -ub
int     keep
switch  swa-full
words   flash-attn              -fa
toggle  perf
toggle  escape                  -e
text    rope-scaling
float   rope-scale
float   rope-freq-base
float   rope-freq-scale
int     yarn-orig-ctx
float   yarn-ext-factor
float   yarn-attn-factor
float   yarn-beta-slow
float   yarn-beta-fast
toggle  kv-offload              -kvo !-nkvo
toggle  repack                  !-nr
switch  no-host
text    cache-type-k            -ctk
text    cache-type-v            -ctv
float   defrag-thold            -dt
commas  rpc
text    load-mode               -lm
text    lazy-mode               -lzm
toggle  mmap
switch  mlock
toggle  direct-io               -dio !-ndio
text    numa
commas  device                  -dev
switch  list-devices
commas  override-tensor         -ot
switch  cpu-moe                 -cmoe
int     n-cpu-moe               -ncmoe
int     n-cpu-ffn               -ncffn
words   gpu-layers              -ngl n-gpu-layers
text    split-mode              -sm
commas  tensor-split            -ts
int     main-gpu                -mg
words   fit
commas  fit-target              -fitt
int     fit-ctx                 -fitc
switch  check-tensors
commas  override-kv
toggle  op-offload
paths   lora
many    lora-scaled
paths   control-vector
many    control-vector-scaled
pair    control-vector-layer-range
path    model                   -m
text    model-url               -mu
text    docker-repo             -dr
text    hf-repo                 -hf -hfr
text    hf-file                 -hff
text    hf-token                -hft
switch  log-disable
path    log-file
toggle  log-jsonl
words   log-colors
switch  verbose                 -v log-verbose
switch  offline
int     verbosity               -lv log-verbosity
toggle  log-prefix
toggle  log-timestamps
text    spec-draft-type-k       -ctkd cache-type-k-draft
text    spec-draft-type-v       -ctvd cache-type-v-draft
text    samplers
int     seed                    -s
text    sampling-seq            sampler-seq
switch  ignore-eos
float   temp                    temperature
int     top-k
float   top-p
float   min-p
float   top-n-sigma             top-nsigma
float   xtc-probability
float   xtc-threshold
float   typical                 typical-p
int     repeat-last-n
float   repeat-penalty
float   presence-penalty
float   frequency-penalty
float   dry-multiplier
float   dry-base
int     dry-allowed-length
int     dry-penalty-last-n
many    dry-sequence-breaker
float   adaptive-target
float   adaptive-decay
float   dynatemp-range
float   dynatemp-exp
int     mirostat
float   mirostat-lr
float   mirostat-ent
many    logit-bias              -l
text    grammar
path    grammar-file
text    json-schema             -j
path    json-schema-file        -jf
switch  backend-sampling        -bs
text    spec-draft-hf           -hfd -hfrd hf-repo-draft
int     spec-draft-threads      -td threads-draft
int     spec-draft-threads-batch -tbd threads-batch-draft
text    spec-draft-cpu-mask     -Cd cpu-mask-draft
text    spec-draft-cpu-range    -Crd cpu-range-draft
int     spec-draft-cpu-strict   cpu-strict-draft
int     spec-draft-prio         prio-draft
int     spec-draft-poll         poll-draft
text    spec-draft-cpu-mask-batch -Cbd cpu-mask-batch-draft
int     spec-draft-cpu-strict-batch cpu-strict-batch-draft
int     spec-draft-prio-batch   prio-batch-draft
int     spec-draft-poll-batch   poll-batch-draft
commas  spec-draft-override-tensor -otd override-tensor-draft
switch  spec-draft-cpu-moe      -cmoed cpu-moe-draft
int     spec-draft-n-cpu-moe    -ncmoed spec-draft-ncmoe n-cpu-moe-draft
int     spec-draft-n-max
int     spec-draft-n-min
float   spec-synth-len
commas  spec-synth-rates
float   spec-draft-p-split      draft-p-split
float   spec-draft-p-min        draft-p-min
toggle  spec-draft-backend-sampling
text    spec-draft-sampling
commas  spec-draft-device       -devd device-draft
words   spec-draft-ngl          -ngld gpu-layers-draft n-gpu-layers-draft
path    spec-draft-model        -md model-draft
int     ctx-size-draft          -cd
commas  spec-type
int     spec-ngram-mod-n-min
int     spec-ngram-mod-n-max
int     spec-ngram-mod-n-match
int     spec-ngram-simple-size-n
int     spec-ngram-simple-size-m
int     spec-ngram-simple-min-hits
int     spec-ngram-map-k-size-n
int     spec-ngram-map-k-size-m
int     spec-ngram-map-k-min-hits
int     spec-ngram-map-k4v-size-n
int     spec-ngram-map-k4v-size-m
int     spec-ngram-map-k4v-min-hits
int     draft-max               draft draft-n
int     draft-min               draft-n-min
switch  spec-default
path    lookup-cache-static     -lcs
path    lookup-cache-dynamic    -lcd
int     kv-unified-per-slot
int     ctx-checkpoints         -ctxcp swa-checkpoints
int     checkpoint-min-step     -cms
int     cache-ram               -cram
toggle  kv-unified              -kvu !-no-kvu
toggle  cache-idle-slots
toggle  context-shift
many    reverse-prompt          -r
switch  special                 -sp
toggle  warmup
switch  spm-infill
text    pooling
text    attention
int     parallel                -np
toggle  cont-batching           -cb !-nocb
int     grp-attn-n              -gan
int     grp-attn-w              -gaw
path    mmproj                  -mm
text    mmproj-url              -mmu
toggle  mmproj-auto             !no-mmproj
toggle  mmproj-offload
text    mmproj-device           -mmdev
int     image-min-tokens
int     image-max-tokens
int     mtmd-batch-max-tokens
float   video-fps
int     video-timestamp-interval
path    video-ffmpeg-dir
commas  alias                   -a
commas  tags
int     embd-normalize
text    host
int     port
switch  reuse-port
path    path
commas  cors-origins
commas  cors-methods
commas  cors-headers
toggle  cors-credentials
text    api-prefix
text    ui-config               webui-config
path    ui-config-file          webui-config-file
toggle  ui-mcp-proxy            webui-mcp-proxy !no-webui-mcp-proxy
commas  tools
text    tools-runtime
path    mcp-servers-config
text    mcp-servers-json
toggle  agent                   -ag !-no-ag
toggle  ui                      webui !no-ui !no-webui
switch  embedding               embeddings
switch  reranking               rerank
text    api-key
path    api-key-file
path    ssl-key-file
path    ssl-cert-file
text    chat-template-kwargs
int     timeout                 -to
int     sse-ping-interval
int     threads-http
toggle  cache-prompt
int     cache-reuse
switch  metrics
switch  props
toggle  slots
path    slot-save-path
path    media-path
path    models-dir
path    models-preset
int     models-max
toggle  models-autoload
toggle  jinja
text    reasoning-format
words   reasoning               -rea
text    reasoning-effort
int     reasoning-budget
text    reasoning-budget-message
toggle  reasoning-preserve
text    chat-template
path    chat-template-file
toggle  skip-chat-parsing
toggle  prefill-assistant
float   slot-prompt-similarity  -sps
switch  lora-init-without-apply
int     sleep-idle-seconds
path    log-prompts-dir
path    model-vocoder           -mv
switch  tts-use-guide-tokens
switch  embd-gemma-default
switch  fim-qwen-1.5b-default
switch  fim-qwen-3b-default
switch  fim-qwen-7b-default
switch  fim-qwen-7b-spec
switch  fim-qwen-14b-spec
switch  fim-qwen-30b-default
switch  gpt-oss-20b-default
switch  gpt-oss-120b-default
switch  vision-gemma-4b-default
switch  vision-gemma-12b-default
switch  help                    -h usage
switch  version
switch  cache-list              -cl
switch  completion-bash
"""

#: llamactl itself decides these; the reason is told to whoever sets one.
RESERVED: dict[str, str] = {
    "host": "an instance listens on loopback only",
    "port": "llamactl finds a free port by itself",
    "reuse-port": "a port belongs to one instance",
    "api-prefix": "llamactl reaches an instance at its root",
    "api-key": "an instance gets a new random key at each start",
    "api-key-file": "an instance gets a new random key at each start",
    "ssl-key-file": "an instance is reached over loopback",
    "ssl-cert-file": "an instance is reached over loopback",
    "hf-token": "the token comes from HF_TOKEN or from `hf auth login`",
    "help": "it would print and end",
    "version": "it would print and end",
    "list-devices": "it would print and end",
    "cache-list": "it would print and end",
    "completion-bash": "it would print and end",
}

#: Flags that read or write files, reach the network or run programs for whoever may ask.
DANGEROUS: frozenset[str] = frozenset(
    {
        "agent",
        "docker-repo",
        "log-file",
        "log-prompts-dir",
        "lookup-cache-dynamic",
        "mcp-servers-config",
        "mcp-servers-json",
        "media-path",
        "model-url",
        "mmproj-url",
        "models-preset",
        "path",
        "rpc",
        "slot-save-path",
        "tools",
        "tools-runtime",
        "ui-config-file",
        "ui-mcp-proxy",
        "video-ffmpeg-dir",
    }
)

#: What took the place of flags that newer builds do not have: by name and, for a toggle, value.
RENAMED: dict[tuple[str, bool | None], tuple[str, str | None]] = {
    ("mmap", True): ("load-mode", "mmap"),
    ("mmap", False): ("load-mode", "none"),
    ("mlock", True): ("load-mode", "mmap+mlock"),
    ("direct-io", True): ("load-mode", "dio"),
    ("direct-io", False): ("load-mode", "auto"),
    ("draft-max", None): ("spec-draft-n-max", None),
    ("draft-min", None): ("spec-draft-n-min", None),
}


@dataclass(frozen=True)
class Flag:
    """One flag. Names are without dashes in front; ``name`` is the canonical, long one."""

    kind: str
    name: str
    aliases: tuple[str, ...] = ()
    off: str = ""
    other_off: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The name that it has in ``backend_options``."""
        return self.name.replace("-", "_")

    def spellings(self, *, off: bool = False) -> list[str]:
        """How it may stand on a command line, the canonical way first."""
        names = (self.off, *self.other_off) if off else (self.name, *self.aliases)
        return [f"{dash}{name}" for name in names if name for dash in ("--", "-")]

    @property
    def values(self) -> int:
        """How many words it takes after it on a command line."""
        return {"switch": 0, "toggle": 0, "pair": 2}.get(self.kind, 1)

    @property
    def is_list(self) -> bool:
        return self.kind in {"commas", "many", "paths"}

    @property
    def is_path(self) -> bool:
        return self.kind in {"path", "paths"}


def lookup(name: str) -> tuple[Flag, bool] | None:
    """The flag of that name, and whether the name switches it off.

    Dashes in front, and underscores for hyphens, are allowed; case counts (``-C`` is not ``-c``).
    """
    bare = name.lstrip("-")
    return _BY_NAME.get(bare) or _BY_NAME.get(bare.replace("_", "-"))


def nearest(name: str) -> str | None:
    """The known long name that is most like ``name``."""
    wanted = name.lstrip("-").replace("_", "-").lower()
    close = difflib.get_close_matches(wanted, [flag.name for flag in FLAGS], n=1, cutoff=0.6)
    return close[0] if close else None


def _read_line(line: str) -> Flag:
    kind, name, *others = line.split()
    names = tuple(word.lstrip("-") for word in others if not word.startswith("!"))
    offs = [word[1:] for word in others if word.startswith("!")]
    if kind != "toggle":
        return Flag(kind, name, names)
    # The long ones that are spelled out are older than the regular one, so every build has them.
    off = next((word for word in offs if not word.startswith("-")), f"no-{name}")
    rest = tuple(word.lstrip("-") for word in (*offs, f"no-{name}") if word != off)
    return Flag(kind, name, names, off, rest)


FLAGS = tuple(_read_line(line) for line in _TABLE.strip().splitlines())
_BY_NAME: dict[str, tuple[Flag, bool]] = {
    **{name: (flag, False) for flag in FLAGS for name in (flag.name, *flag.aliases)},
    **{name: (flag, True) for flag in FLAGS for name in (flag.off, *flag.other_off) if name},
}


def dashes(name: str) -> str:
    """A flag's name with its dashes: kept as written, else one for a letter and two for a word."""
    if name.startswith("-"):
        return name
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
