"""Recognise a file that only says where its contents are: what a clone has before `git lfs pull` or `git annex get`."""

from __future__ import annotations

from pathlib import Path

POINTER_BYTES = 1024  # the Git LFS specification's own limit; git-annex' pointers are shorter still
_KINDS = {
    b"version https://git-lfs.github.com/spec/v1": ("Git LFS", "git lfs pull"),
    b"/annex/objects/": ("git-annex", "git annex get"),
}


def pointer_problem(data: bytes) -> str | None:
    """What is wrong with a file of so many bytes that is a pointer, for behind its name; None if it is none."""
    for beginning, (system, command) in _KINDS.items():
        if data.startswith(beginning) and len(data) <= POINTER_BYTES:
            return f"is a {system} pointer and not the file itself; run {command}"
    return None


def pointer_among(directory: Path) -> str | None:
    """The sentence about the first pointer among the files of a directory; None if there is none."""
    for path in sorted(directory.iterdir()):
        if path.is_file() and path.stat().st_size <= POINTER_BYTES and (problem := pointer_problem(path.read_bytes())):
            return f"{path} {problem}"
    return None
