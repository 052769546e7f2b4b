"""What to do about things that several modules meet; the embedded server must load few modules."""

from __future__ import annotations

HOW_TO_INSTALL = (
    "Install llama.cpp's own llama-server (`brew install llama.cpp`, your distribution's package, "
    "or a build from https://github.com/ggml-org/llama.cpp) and put it on PATH, or name it in "
    "backends.llama-cpp.command."
)
