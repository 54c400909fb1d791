"""Fetch from the Hugging Face hub: every repository at one commit, and no pickles.

A branch name is resolved to its commit once, when a bundle is built; the bundle records it, and so does the store, and
what is known is not asked for again. SAEs come through sae-lens, which downloads from `main` whatever it is told: while
it loads, the two functions that it downloads with are replaced by ones that name the commit and refuse pickled weights,
in which code can hide, unless the job allows them (`pickles`). Access tokens are left to the hub's library (`HF_TOKEN`,
or its login file).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featurestore.base.library_errors import brief
from featurestore.errors import BundleError
from ray_jobs.prepare.pickles import is_pickle, torch_that_reads_apart

COMMIT = re.compile(r"[0-9a-f]{40}")


def commit_of(repo_id: str, revision: str | None = None) -> str:
    """The commit that a revision (`main` where not given) means now.

    Where the hub is out of reach, or HF_HUB_OFFLINE is set, it is the one that the hub's cache on this machine knows.

    Raises:
        Exception: What the hub's library raises if there is no such repository or revision, or neither hub nor cache.
    """
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        commit = HfApi().repo_info(repo_id, revision=revision).sha
    except HfHubHTTPError:  # it answered: no such thing, or no access
        raise
    except Exception:
        cached = _cached_commit(repo_id, revision or "main")
        if cached is None:
            raise
        return cached
    assert commit is not None
    return commit


def why_not_fetched(error: Exception) -> str | None:
    """Why something did not come from the hub, and what to check; None where the hub has nothing to do with it.

    A hub that answered "no" was reached: only where nobody answered the network is to blame.
    """
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, LocalEntryNotFoundError

    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # the hub's library hides there what it was answered
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        return (
            f"the Hugging Face hub gives it to those who accepted its terms ({brief(error)}); "
            "accept them on its page there, set HF_TOKEN"
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return f"its repository on the Hugging Face hub has no such file ({brief(error)}); check revision and name"
    if status is not None:
        return f"the Hugging Face hub answered {status} ({brief(error)}); check name, revision and access (HF_TOKEN)"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return f"{error.strerror} ({error.filename}); make room there, or set HF_HOME"
    if isinstance(error, OSError | ConnectionError | TimeoutError) or "connect" in type(error).__name__.lower():
        return f"the Hugging Face hub could not be reached ({brief(error)}); check the network"
    return None


@contextmanager
def pinned_downloads(revision: str | None, allow_pickle: bool = False) -> Iterator[dict[str, str]]:
    """While it lasts, sae-lens downloads from one commit of each repository, and no pickles but where they are allowed.

    Args:
        revision: Branch, tag or commit; `main` where not given.
        allow_pickle: Pickled weights are fetched, and read as `ray_jobs.prepare.pickles` reads them.

    Yields:
        Repository -> commit, filled as sae-lens asks for files.
    """
    from sae_lens.loading import pretrained_sae_loaders as loaders

    commits: dict[str, str] = {}
    download, url = loaders.hf_hub_download, loaders.hf_hub_url

    def pinned(repo_id: str, filename: str) -> dict[str, Any]:
        if is_pickle(filename) and not allow_pickle:
            raise BundleError(
                f"{repo_id} keeps this SAE as {filename}, a pickle, in which code can hide; set allow_pickle: true for "
                "this SAE to have its tensors read in a process of its own, or give the path of a safetensors copy"
            )
        if repo_id not in commits:
            commits[repo_id] = commit_of(repo_id, revision)
        return {"repo_id": repo_id, "filename": filename, "revision": commits[repo_id]}

    def pinned_download(repo_id: str, filename: str, **options: Any) -> Any:
        return download(**{**options, **pinned(repo_id, filename)})

    def pinned_url(repo_id: str, filename: str, **options: Any) -> Any:
        return url(**{**options, **pinned(repo_id, filename)})

    torch = loaders.torch
    loaders.hf_hub_download, loaders.hf_hub_url = pinned_download, pinned_url
    loaders.torch = torch_that_reads_apart(torch)
    try:
        yield commits
    finally:
        loaders.hf_hub_download, loaders.hf_hub_url, loaders.torch = download, url, torch


def _cached_commit(repo_id: str, revision: str) -> str | None:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    reference = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo_id, repo_type="model") / "refs" / revision
    try:
        commit = reference.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return commit if COMMIT.fullmatch(commit) else None
