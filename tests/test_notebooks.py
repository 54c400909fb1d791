"""The notebooks of examples/ run from the first cell to the last, and show what they say."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import nbformat
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = ("corpus-to-study", "look-at-a-store")  # the second opens the store that the first has made


def cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_kept_as_it_was_written_and_is_python(name: str) -> None:
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    for cell in cells(notebook):
        assert cell.outputs == [] and cell.execution_count is None
        ast.parse(cell.source)


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in EXAMPLES.rglob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.slow
@pytest.mark.real
def test_the_notebooks_run_and_show_plan_store_study_and_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    said: dict[str, list[tuple[str, str, str]]] = {}  # variable at the end of a cell -> kind, text, HTML of its outputs
    for name in NOTEBOOKS:
        notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
        client = NotebookClient(
            notebook, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
        )
        client.execute()
        for cell in cells(notebook):
            assert not [one for one in cell.outputs if one.output_type in ("error", "stream")], cell.source
            outputs = [
                (one.output_type, one.data.get("text/plain", ""), one.data.get("text/html", "")) for one in cell.outputs
            ]
            said[cell.source.splitlines()[-1]] = outputs
    assert said["plan"][-1][1].startswith("Plan(181 documents, ") and "SAE" in said["store"][-1][2]
    assert "<svg" in said["study"][-1][2] and "SAE features" in said["study"][-1][1]
    assert [kind for kind, *_ in said["study"]] == [
        "display_data",
        "execute_result",
    ]  # where a line moved, and the study
    assert "background:rgba" in said["evidence"][-1][2]
