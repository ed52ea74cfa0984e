"""The notebook works, cell by cell, in a kernel of its own, against the emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from eggapi_async.emulator import EggEmulator
from tests.pages import ROOT
from tests.served import environment, served

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
PATIENCE = 300
"""Seconds that a cell may take on a busy machine."""


def test_the_notebook_is_kept_without_outputs() -> None:
    """What somebody's run has left is nobody else's."""
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    assert len(cells) > 8
    assert [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def executed(url: str, folder: Path) -> Any:
    """The notebook after a run in *folder*, against the service at *url*."""
    nbformat = pytest.importorskip("nbformat", reason="needs the extra `examples`")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `examples`")
    pytest.importorskip("ipykernel", reason="needs the extra `examples`")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    env = environment(EGGAPI_BASE_URL=url, EGGAPI_API_KEY="a-key", IPYTHONDIR=str(folder))
    client = nbclient.NotebookClient(notebook, timeout=PATIENCE, resources=resources)
    client.execute(env=env)
    return notebook


@pytest.mark.filterwarnings("default")
def test_every_cell_runs(tmp_path: Path) -> None:
    """One picture, a grid of eight with what they cost, the files, and nothing left open."""
    with served(EggEmulator(speed=100)) as url:
        notebook = executed(url, tmp_path)

    shown = [page for cell in notebook.cells for page in html_of(cell)]
    assert len(shown) == 3, "the task, its result, the outcomes"
    assert "await it" in shown[0] or "completed" in shown[0]
    assert shown[1].count("<img") == 1
    assert f'src="{url}/outputs/' in shown[1]
    assert shown[2].count("<img") == 8
    assert "8 of 8 made · $0.08" in shown[2]
    assert len(list((tmp_path / "notebook-pictures").glob("*.png"))) == 8
    assert "a-key" not in str(notebook)


def html_of(cell: Any) -> list[str]:
    """What a cell shows as HTML."""
    return [
        output["data"]["text/html"]
        for output in cell.get("outputs", [])
        if "text/html" in output.get("data", {})
    ]
