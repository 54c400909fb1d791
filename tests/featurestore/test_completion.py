"""Shells complete what there is: commands, options, choices, files, by scripts made from the parsers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import sparsemill

ASKED = [  # what is typed, one answer that has to come, one that must not
    (["pl"], "plan", "predict"),
    (["plan", "--har"], "--hardware", "--corpus"),
    (["export", "--format", ""], "svmlight", "--sae"),
    (["names", "key"], "keywords", "list"),
    (["plan", "job-"], "job-of-mine.yaml", "plan"),
]


def script(shell: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script that the command prints, in a folder with a job beside it."""
    assert sparsemill.main(["completion", shell]) == 0
    (folder / "script").write_text(capsys.readouterr().out)
    (folder / "job-of-mine.yaml").touch()
    return folder / "script"


def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"source {script('bash', tmp_path, capsys)}"]
    for words, _, _ in ASKED:
        typed = " ".join(f"'{word}'" for word in words)
        lines += [f"COMP_WORDS=(sparsemill {typed}); COMP_CWORD={len(words)}", "COMPREPLY=(); _shtab_sparsemill"]
        lines += ['echo "${COMPREPLY[@]}"']
    done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=tmp_path, capture_output=True, text=True, check=True)
    for answer, (_, wanted, other) in zip(done.stdout.splitlines(), ASKED, strict=True):
        assert wanted in answer.split() and other not in answer.split()


def test_fish_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("fish") is None:
        pytest.skip("there is no fish; apt-get install fish")
    path = script("fish", tmp_path, capsys)
    for words, wanted, other in ASKED:
        asked = f"source {path}; complete -C 'sparsemill {' '.join(words)}'"
        done = subprocess.run(["fish", "-c", asked], cwd=tmp_path, capture_output=True, text=True, check=True)
        found = [line.partition("\t")[0] for line in done.stdout.splitlines()]
        assert wanted in found and other not in found


def test_zsh_reads_its_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = script("zsh", tmp_path, capsys)
    assert "#compdef sparsemill" in path.read_text() and "--hardware" in path.read_text()
    if shutil.which("zsh") is not None:
        subprocess.run(["zsh", "-n", path], check=True)


def test_an_unknown_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        sparsemill.main(["completion", "tcsh"])
    assert stopped.value.code == 2 and "there is bash, zsh, fish" in capsys.readouterr().err
