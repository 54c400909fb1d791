"""URLs with secrets are told from those that only name a place, and are never shown whole."""

from __future__ import annotations

import subprocess
import sys

import pytest

from featurestore.errors import JobFailed, StoreError
from featurestore.url_secrets import reason_about, secret_in, secret_within, shown, split_query, without_secrets


@pytest.mark.parametrize(
    ("uri", "carries"),
    [
        ("s3://AKIA:secret@bucket/x", "a user and password"),
        ("s3://AKIA:sec/ret@bucket/x", "a user and password"),
        ("https://me:pass@host:8080/x", "a user and password"),
        ("abfs://user:pass@account/x", "a user and password"),
        ("s3://AKIA:12/sec@bucket/x", "a user and password"),  # s3 has no ports
        ("s3://AKIA:secret/x", "a user and password"),  # whose @bucket was forgotten
        ("s3://AKIA@bucket/x", "a user or key"),
        ("git+https://sec_token@host/x", "a user or key"),
        ("s3://bucket/x?endpoint_override=http://me:sec@host", "a secret in its query"),
        ("s3://bucket:9000/x", None),
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
    code = "import sys, featurestore.url_secrets; print('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cannot open 's3://K:S@b/x': denied", "cannot open 's3://b/x': denied"),
        ("no https://h/x?sig=abc; nor (s3://K:S@b/x?region=eu).", "no https://h/x; nor (s3://b/x)."),
        ("at hf://datasets/o/n@main/x and abfs://c@a/x?y=1", "at hf://datasets/o/n@main/x and abfs://c@a/x?y=1"),
        ("a: b@c, 12:30, //x@y", "a: b@c, 12:30, //x@y"),
    ],
)
def test_urls_within_a_text_lose_their_secrets_and_nothing_else(text: str, said: str) -> None:
    assert without_secrets(text) == said
    assert (secret_within(text) is None) == (text == said)
    assert str(StoreError(text)) == said and JobFailed(text).args == (said,)


def test_what_a_library_says_is_left_out_where_it_repeats_a_piece_of_a_secret() -> None:
    uri = "sftp://me:12Top%2FSecret@host/x"
    for reason in ("Port could not be cast to integer value as '12Top'", "bad 12top/secret", f"cannot parse {uri}"):
        assert "top" not in reason_about(uri, reason, "ValueError").lower()
    assert reason_about(uri, "paramiko is missing", "ImportError") == "paramiko is missing"
    assert reason_about("sftp://host/x", "host is down", "OSError") == "host is down"


def test_a_query_is_no_part_of_a_name_and_a_path_has_none() -> None:
    assert split_query("s3://b/x.npz?region=eu") == ("s3://b/x.npz", "?region=eu")
    assert split_query("/a/what?.npz") == ("/a/what?.npz", "")
