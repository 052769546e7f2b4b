"""The documentation says what the program does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from llamactl.app import create_app
from llamactl.cli.groups import COMMANDS
from llamactl.config import Config
from llamactl.runtime import Runtime
from llamactl.settings import SETTINGS
from tests.requirements import require

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_configuration_page_is_the_settings_table() -> None:
    made = subprocess.run(
        [sys.executable, "docs/write_configuration.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ROOT / "docs/configuration.md").read_text() == made.stdout, "run: make docs"


def test_every_setting_is_documented_once() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    for setting in SETTINGS:
        assert text.count(f"| `{setting.name}` |") == 1


def test_every_command_has_its_section() -> None:
    text = (ROOT / "docs/cli.md").read_text()
    for name in COMMANDS:
        assert re.search(rf"^## `?llamactl {name}\b", text, re.MULTILINE), name


def test_every_route_of_the_management_interface_is_described(config: Config) -> None:
    text = (ROOT / "docs/api.md").read_text()
    for rule in create_app(config, Runtime(config)).url_map.iter_rules():
        if rule.rule.startswith("/api/v1/"):
            literals = [part for part in rule.rule.split("/") if part and "<" not in part]
            assert f"/{literals[-1]}" in text, rule.rule


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(linked), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """What a heading is called in a link."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in headings}


def test_make_help_lists_every_target_that_a_person_calls() -> None:
    told = subprocess.run([require("make"), "help"], cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0
    for target in ("run", "test", "check", "storm", "bench", "wheel", "docs", "clean"):
        assert f"make {target} " in told.stdout


def test_the_systemd_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not on this machine (apt install systemd)")
    unit = (ROOT / "deploy/llamactl.service").read_text()
    assert "/opt/llamactl/bin/llamactl" in unit
    file = tmp_path / "llamactl.service"
    file.write_text(unit.replace("/opt/llamactl/bin/llamactl", sys.executable))
    checked = subprocess.run([program, "verify", str(file)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")
