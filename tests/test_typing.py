"""The type tests in `typing` hold: mypy reads them, in the strictest mode, and nobody runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
API = Path(__file__).parent / "typing" / "api.py"


def mypy(path: Path, *, cache: Path) -> subprocess.CompletedProcess[str]:
    """What `mypy --strict` says to the file."""
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={cache}", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of this run alone, so that no earlier verdict counts."""
    return tmp_path_factory.mktemp("mypy")


def test_the_public_api_has_its_types(cache: Path) -> None:
    """Every assertion about the public types is true."""
    said = mypy(API, cache=cache)
    assert said.returncode == 0, said.stdout + said.stderr


def test_a_wrong_type_would_be_seen(cache: Path, tmp_path: Path) -> None:
    """The package's types reach its users: what is wrong about them is an error."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import eggapi_async\nasync def f(egg: eggapi_async.AsyncEggClient) -> int:\n"
        '    return await egg.get_task("gen_1")\n'
    )
    said = mypy(wrong, cache=cache)
    assert said.returncode == 1, said.stdout + said.stderr
    assert 'got "TaskSnapshot", expected "int"' in said.stdout
