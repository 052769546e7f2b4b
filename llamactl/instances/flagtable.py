"""The names of llama-server's flags, as data; ``flags.py`` says how a line is read."""

TABLE = """
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
