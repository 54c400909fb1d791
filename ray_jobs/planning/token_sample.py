"""Count the tokens of the documents that the scan has sampled, for prices, units and memory of the whole corpus."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from featurestore.format.store_plan import StorePlan
    from ray_jobs.backbone.bundle import Bundle
    from ray_jobs.backbone.tokens import Content
    from ray_jobs.corpus.scanned import CorpusScan
    from ray_jobs.spec import JobSpec

SAMPLED_DOCUMENTS = 512  # of the scan's sample; tokenising them takes a fraction of a second
STRETCHED_TOKENS, STRETCHED_WINDOWS = 2**18, 256  # at most, of a document that the sample has cut: more are like these
PAGE_BYTES = 2**16  # of a mapped file: Linux maps as much around what is read, if it is in the page cache


class TokenSample(NamedTuple):
    """What a sample of the corpus says of its tokens.

    Attributes:
        mean_tokens: Pooled tokens of a document.
        documents: Documents in the sample.
        truncated_share: Share of them that does not fit into `max_tokens` and will be cut.
        longest: Tokens of the longest row that is fed of them; 0 if unknown.
        embedding_bytes: What they read of the embedding, whole pages; 0 if unknown.
        mean_fed: Positions of all windows of a document, whatever is pooled of them; 0 if unknown.
        mean_window: Positions of a window; 0 if unknown.
    """

    mean_tokens: float
    documents: int
    truncated_share: float
    longest: int = 0
    embedding_bytes: int = 0
    mean_fed: float = 0.0
    mean_window: float = 0.0


def sample_tokens(bundle: Bundle, job: JobSpec, scanned: CorpusScan) -> TokenSample:
    """Count tokens of the documents that the scan has sampled; of those that it has cut, as many as the whole has."""
    from ray_jobs.backbone.tokens import ContentTokenizer, token_policy, windows_of

    if bundle.vision is not None:
        return _sample_images(bundle, job, scanned)
    every = slice(None, None, max(1, len(scanned.sample) // SAMPLED_DOCUMENTS))
    policy = token_policy(bundle, job.model)
    windowed = 0 if policy.stride is None else STRETCHED_WINDOWS * (policy.room - policy.stride)
    most = max(4 * policy.max_tokens, min(STRETCHED_TOKENS, windowed))
    pooled, n_cut, longest, n_fed, n_windows = [], 0, 0, 0.0, 0.0
    page_rows = max(1, PAGE_BYTES // (bundle.d_model * (2 if bundle.dtype == "bfloat16" else 4)))
    pages = np.zeros(bundle.model.vocab_size // page_rows + 1, dtype=bool)
    contents = ContentTokenizer(bundle, job.model.chat).encode(scanned.sample[every])
    for content, times in zip(contents, scanned.sample_times[every], strict=True):
        if isinstance(content, str):
            continue
        ids = content if isinstance(content, np.ndarray) else content.ids
        stretched = min(times, max(most / max(len(ids), 1), 1.0))
        windows, cut = windows_of(0, content if times == 1 else _stretched(content, stretched), policy)
        beyond = times / stretched if policy.stride is not None else 1.0  # what is behind is windows like these
        pooled.append(sum(window.n_pooled for window in windows) * beyond)
        n_fed += sum(len(window.ids) for window in windows) * beyond
        n_windows += len(windows) * beyond
        n_cut += cut
        longest = max([longest, *(len(window.ids) for window in windows)])
        for window in windows:
            pages[window.ids // page_rows] = True
    if not pooled:
        return TokenSample(0.0, 0, 0.0)
    return TokenSample(
        mean_tokens=sum(pooled) / len(pooled),
        documents=len(pooled),
        truncated_share=n_cut / len(pooled),
        longest=longest,
        embedding_bytes=int(pages.sum()) * PAGE_BYTES,
        mean_fed=n_fed / len(pooled),
        mean_window=n_fed / max(n_windows, 1.0),
    )


def _stretched(content: Content, times: float) -> Content:
    """Tokens of a document of which the sample has a part: each of its own so many times, those around them once."""
    from ray_jobs.backbone.chat import Rendered, Turns

    if isinstance(content, Turns):
        own = content.own
    elif isinstance(content, Rendered):
        places = np.arange(len(content.ids))
        own = (places >= content.start) & (places < content.stop)
    else:
        own = np.ones(len(content), dtype=bool)
    ends = np.cumsum(np.where(own, times, 1.0)).round().astype(np.int64)
    again = np.repeat(np.arange(len(own)), np.diff(ends, prepend=0))
    if isinstance(content, Turns):
        return replace(content, ids=content.ids[again], pooled=content.pooled[again], own=own[again])
    if isinstance(content, Rendered):
        stop = content.start + int(own[again].sum())
        return replace(content, ids=content.ids[again], stop=stop)
    return content[again]


def _sample_images(bundle: Bundle, job: JobSpec, scanned: CorpusScan) -> TokenSample:
    """The same of images, which all take as many positions; only their prompts differ."""
    from ray_jobs.engine.image_inputs import ImageInputs

    found = ImageInputs(bundle, job.model).counts(scanned.sample[:: max(1, len(scanned.sample) // SAMPLED_DOCUMENTS)])
    if not found:
        return TokenSample(0.0, 0, 0.0)
    return TokenSample(sum(n for n, _ in found) / len(found), len(found), sum(cut for _, cut in found) / len(found))


def kept_sample(stored: StorePlan | None) -> TokenSample | None:
    """The sample's figures as the store recorded them; a store without them is sampled again."""
    try:
        kept = stored.extra["sample"] if stored else None
        if not kept:
            return None
        known = (int(kept.get(name, 0)) for name in ("longest", "embedding_bytes"))  # not of earlier versions
        fed = (float(kept.get(name, 0)) for name in ("mean_fed", "mean_window"))
        return TokenSample(kept["mean_tokens"], kept["documents"], kept["truncated_share"], *known, *fed)
    except (KeyError, TypeError):
        return None
