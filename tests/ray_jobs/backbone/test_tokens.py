"""What is fed and what counts, against the window rule written out token by token."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featurestore.errors import JobSpecError
from ray_jobs.backbone.bundle import Bundle
from ray_jobs.backbone.tokens import ContentTokenizer, TokenPolicy, token_policy, windows_of
from ray_jobs.engine.extractor import ExtractSettings
from tests.reference import ReferenceModel, windows_by_rule
from tests.tiny import tiny_texts

CHOICES: dict = {"tokens": "content", "max_tokens": 64, "long_documents": "truncate", "stride": 0, "chat": False}


@given(
    n_content=st.integers(0, 60),
    bos=st.lists(st.just(2), max_size=2),
    room=st.integers(1, 20),
    stride=st.none() | st.integers(0, 19),
    count_all=st.booleans(),
)
def test_windows_follow_the_rule(
    n_content: int, bos: list[int], room: int, stride: int | None, count_all: bool
) -> None:
    stride = None if stride is None else min(stride, room - 1)
    content = list(range(100, 100 + n_content))
    head, nothing = np.array(bos, dtype=np.int32), np.array([], dtype=np.int32)
    policy = TokenPolicy(head, nothing, len(bos) + room, stride, count_all)
    windows, truncated = windows_of(3, np.array(content, dtype=np.int32), policy)
    expected = windows_by_rule(content, bos, policy.max_tokens, stride, count_all)
    assert [window.ids.tolist() for window in windows] == [fed.ids for fed in expected]
    assert [slice(window.start, window.stop) for window in windows] == [fed.pooled for fed in expected]
    pooled = [token for window in windows for token in window.ids[window.start : window.stop].tolist() if token >= 100]
    assert pooled == content[: len(pooled)]
    assert truncated == (len(pooled) < n_content)
    assert all(window.document == 3 for window in windows)


def test_a_tail_follows_the_last_window_only() -> None:
    head, tail = np.array([2, 9], dtype=np.int32), np.array([8], dtype=np.int32)
    policy = TokenPolicy(head, tail, max_tokens=6, stride=1, count_all=True)
    windows, _ = windows_of(0, np.arange(100, 105, dtype=np.int32), policy)
    assert [window.ids.tolist() for window in windows] == [[2, 9, 100, 101, 102], [2, 9, 102, 103, 104, 8]]
    assert [(window.start, window.stop) for window in windows] == [(0, 5), (3, 6)]


def test_content_is_tokenised_as_transformers_does(bundle: Bundle, reference: ReferenceModel) -> None:
    texts = [*tiny_texts(300, seed=3), "", " ", "\n\n", "ÄÖÜ 漢字 \u200d"]
    encoded = ContentTokenizer(bundle).encode(texts)
    assert [np.asarray(ids).tolist() for ids in encoded] == [reference.content(text) for text in texts]


def test_bos_goes_before_every_text(bundle: Bundle, reference: ReferenceModel) -> None:
    policy = token_policy(bundle, ExtractSettings(**CHOICES))
    assert policy.head.tolist() == [reference.tokenizer.bos_token_id]
    assert policy.room == 63


def test_no_room_for_content_is_refused(bundle: Bundle) -> None:
    with pytest.raises(JobSpecError, match=r"model.max_tokens: 1 leaves no room"):
        token_policy(bundle, ExtractSettings(**{**CHOICES, "max_tokens": 1}))
    with pytest.raises(JobSpecError, match="stride of 31"):
        token_policy(
            bundle, ExtractSettings(**{**CHOICES, "max_tokens": 32, "long_documents": "windows", "stride": 31})
        )
    with pytest.raises(JobSpecError, match="leaves no room"):
        token_policy(bundle, ExtractSettings(**{**CHOICES, "max_tokens": 4, "chat": True}))
