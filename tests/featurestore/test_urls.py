"""URLs with secrets are told from those that only name a place, and are never shown whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from featurestore.urls import secret_in, shown


@pytest.mark.parametrize(
    ("uri", "carries"),
    [
        ("s3://AKIA:secret@bucket/x", "a user and password"),
        ("s3://AKIA:sec/ret@bucket/x", "a user and password"),
        ("https://me:pass@host:8080/x", "a user and password"),
        ("abfs://user:pass@account/x", "a user and password"),
        ("s3://AKIA@bucket/x", "a user or key"),
        ("https://ghp_token@host/x", "a user or key"),
        ("https://host/x?X-Amz-Signature=abc", "a secret in its query"),
        ("https://host/x?a=1&sig=abc", "a secret in its query"),
        ("s3://bucket/x?endpoint_override=127.0.0.1:9000&scheme=http&region=eu", None),
        ("http://127.0.0.1:9000/a@b", None),
        ("s3://bucket/user@host/x", None),
        ("abfs://container@account.dfs.core.windows.net/x", None),
        ("hf://datasets/owner/name@main/x.parquet", None),
        ("/home/a:b@c", None),
        ("text: with a://", None),
    ],
)
def test_secrets_in_urls_are_told_from_places(uri: str, carries: str | None) -> None:
    assert secret_in(uri) == carries
    assert "sec" not in shown(uri) or carries is None


def test_the_module_is_light() -> None:
    code = "import sys, featurestore.urls; print('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
