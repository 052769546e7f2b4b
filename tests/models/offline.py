"""What ``llama-server -hf org/name:TAG --offline`` finds: its rules for the Hub's cache, anew.

They are written down from llama.cpp's behaviour and share no code with what is tested.
"""

from __future__ import annotations

import re
from pathlib import Path

HELPERS = ("mmproj", "imatrix", "mtp-", "eagle3-", "dflash-", "dspark-")


def cached_files(hub: Path, repo_id: str) -> dict[str, Path]:
    """The files of the snapshot that refs/main names, by path; only that one counts."""
    repo_dir = hub / f"models--{repo_id.replace('/', '--')}"
    if not (repo_dir / "refs").is_dir():
        return {}
    fallback = ""
    commit = ""
    for ref in (repo_dir / "refs").iterdir():
        first_line = ref.read_text().partition("\n")[0] if ref.is_file() else ""
        if re.fullmatch("[0-9a-fA-F]{40}", first_line):
            commit = first_line if ref.name == "main" else commit
            fallback = fallback or first_line
    snapshot = repo_dir / "snapshots" / (commit or fallback)
    if not (commit or fallback) or not snapshot.is_dir():
        return {}
    return {
        path.relative_to(snapshot).as_posix(): path
        for path in snapshot.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def find(hub: Path, repo_id: str, tag: str = "") -> list[bytes] | None:
    """The contents of all shards that would be loaded, or None when nothing is found.

    A preset in the snapshot, or a link that leads nowhere, is an error that a user would see.
    """
    files = cached_files(hub, repo_id)
    assert "preset.ini" not in files, "llama-server would refuse the model"
    primary = None
    for wanted in [tag] if tag else ["Q4_K_M", "Q8_0", ""]:
        pattern = re.compile(f"{wanted}[.-]" if wanted else "", re.IGNORECASE)
        for name in sorted(files):
            base = name.rpartition("/")[2]
            if not base.endswith(".gguf") or any(word in base for word in HELPERS):
                continue
            split = re.search(r"-(\d{5})-of-\d{5}\.gguf$", name)
            if pattern.search(name) and (split is None or int(split[1]) == 1):
                primary = primary or name
    if primary is None:
        return None
    split = re.search(r"^(.*)-(\d{5})-of-(\d{5})\.gguf$", primary)
    if split is None:
        return [files[primary].read_bytes()]
    names = [f"{split[1]}-{n:05d}-of-{split[3]}.gguf" for n in range(1, int(split[3]) + 1)]
    assert all(name in files for name in names), "llama-server would load half a set"
    return [files[name].read_bytes() for name in names]
