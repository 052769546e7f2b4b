"""What is installed is what is in the tree, wherever it is installed from."""

from __future__ import annotations

import compileall
import configparser
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.requirements import require

ROOT = Path(__file__).parents[1]

# Opens a page, the style sheet that it names, and a vendored script, without a server.
OPEN_A_PAGE = """
import re, sys
from pathlib import Path
from llamactl import assets
from llamactl.app import create_app
from llamactl.config import load_config
from llamactl.runtime import Runtime

folder = Path(sys.argv[1])
config = load_config(environ={"HOME": str(folder)}, overrides={"data_dir": str(folder / "data")})
runtime = Runtime(config)
runtime.database.open()
client = create_app(config, runtime).test_client()
page = client.get("/login", base_url="http://127.0.0.1")
assert page.status_code == 200, page.status
linked = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
assert linked, page.text
for path in linked:
    assert client.get(path, base_url="http://127.0.0.1").status_code == 200, path
runtime.database.close()
print(assets.templates_dir())
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked tree, so that building leaves nothing in this one."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    return folder


@pytest.fixture(scope="module")
def wheel(checkout: Path) -> Path:
    """The wheel that `make wheel` builds in a checkout that was in use for a while."""
    compileall.compile_dir(checkout / "llamactl", quiet=2)
    stale = checkout / "build/lib/llamactl/templates/gone.html"
    stale.parent.mkdir(parents=True)
    stale.write_text("a template that was deleted since the last build")
    done = subprocess.run(
        [require("make"), "wheel", f"PYTHON={sys.executable}"],
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (built,) = (checkout / "dist").glob("llamactl-*.whl")
    return built


def pip(python: str, *arguments: str) -> None:
    done = subprocess.run(
        [python, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def open_a_page(python: Path, folder: Path, *, path: Path | None = None) -> Path:
    """Run the script in another folder; where it found the templates."""
    done = subprocess.run(
        [python, "-c", OPEN_A_PAGE, str(folder)],
        cwd=folder,
        env={"PYTHONPATH": str(path)} if path else {},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def test_the_package_list_is_the_tree() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    listed = set(settings["options"]["packages"].split())
    code = {
        ".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "llamactl").rglob("*.py")
    }
    assert listed == code | {"llamactl.templates", "llamactl.static"}


def test_the_wheel_holds_every_file_of_the_tree_and_nothing_else(
    wheel: Path, checkout: Path
) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if ".dist-info/" not in name}
    wanted = set()
    for top, prefix in (("llamactl", ""), ("templates", "llamactl/"), ("static", "llamactl/")):
        for file in (checkout / top).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                wanted.add(prefix + file.relative_to(checkout).as_posix())
    assert shipped == wanted


def test_a_page_opens_from_a_wheel_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin/python"
    pip(str(python), "install", str(wheel))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert environment in open_a_page(python, elsewhere).parents
    help_text = subprocess.run(
        [environment / "bin/llamactl", "--help"], cwd=elsewhere, capture_output=True, text=True
    )
    assert (help_text.returncode, help_text.stderr) == (0, "")
    # The editable installation takes the place of the wheel's, with the same dependencies.
    checkout = wheel.parents[1]
    pip(str(python), "install", "--no-deps", "--editable", str(checkout))
    assert open_a_page(python, elsewhere) == checkout / "templates"


def test_a_page_opens_from_a_bare_checkout(checkout: Path, tmp_path: Path) -> None:
    assert open_a_page(Path(sys.executable), tmp_path, path=checkout) == checkout / "templates"


def test_a_python_that_cannot_make_environments_is_told_what_to_install(tmp_path: Path) -> None:
    broken = tmp_path / "python-without-venv"
    broken.write_text(
        f'#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n'
    )
    broken.chmod(0o755)
    done = subprocess.run(
        [require("make"), "test", f"PYTHON={broken}", f"VENV={tmp_path}/venv"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "sudo apt install python3-venv" in done.stderr
