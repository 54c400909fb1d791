"""Control tokens in documents are spelled out, whatever the tokenizer flags; what models read as text stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from featurestore.errors import BundleError
from ray_jobs.backbone.spelling import is_control, text_tokenizer

MARKERS = ["<start_of_image>", "[multimodal]", "<|im_start|>", "[@BOS@]", "<unused0>", "</think>", "<2mass>"]
TEXTS = ["<table>", "</h1>", "<bbox>", "<br/>", "\n\n", "▁▁▁", "\t\t", "<=>", "[...]", "covid", "▁word▁", "😀"]
LETTERS = [*"▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789<>[]|/_@.\n"]


@pytest.mark.parametrize("content", MARKERS)
def test_markers_are_control_whether_flagged_or_not(content: str) -> None:
    assert is_control(content, special=True)
    assert is_control(content, special=False)


@pytest.mark.parametrize("content", TEXTS)
def test_tags_spaces_and_words_are_text_unless_flagged(content: str) -> None:
    assert not is_control(content, special=False)
    assert is_control(content, special=True)


def tokenizer_file(path: Path, kind: str, added: list[tuple[str, bool]]) -> Path:
    """A tokenizer of letters whose added tokens (content, flagged) are pieces of the vocabulary too."""
    pieces = ["<unk>", *(content for content, _ in added), *LETTERS]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    if kind == "unigram":
        scores = [(piece, 0.0 if len(piece) > 1 else -5.0) for piece in vocabulary]
        tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    elif kind == "wordpiece":
        rest = {f"##{letter}": len(vocabulary) + number for number, letter in enumerate(LETTERS)}
        tokenizer = Tokenizer(models.WordPiece(vocabulary | rest, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    else:
        merges = [("<", "s"), ("<s", ">")] if "<s>" in vocabulary else []
        vocabulary |= {"<s": len(vocabulary)}
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", ignore_merges=kind == "words"))
        if kind == "words":
            tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_previous")
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("##", ""), decoders.Replace("▁", " "), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken("<unk>", special=True, normalized=False)])
    for content, special in added:
        tokenizer.add_tokens([AddedToken(content, special=special, normalized=False)])
    tokenizer.save(str(path))
    return path


@pytest.mark.parametrize("kind", ["bpe", "words", "unigram", "wordpiece"])
def test_no_text_has_a_control_token_and_all_decode_to_themselves(tmp_path: Path, kind: str) -> None:
    added = [("<s>", True), ("</s>", True), ("<start_of_image>", False), ("[multimodal]", False), ("<table>", False)]
    tokenizer, control = text_tokenizer(tokenizer_file(tmp_path / "tokenizer.json", kind, added))
    assert control == {1, 2, 3, 4}
    for content, _ in added[:-1]:
        for text in (content, f"a{content}b", f"a {content} b", content * 3):
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            assert control.isdisjoint(ids)
            assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert 5 in tokenizer.encode("a<table>b", add_special_tokens=False).ids


def test_other_pieces_keep_their_ids(tmp_path: Path) -> None:
    path = tokenizer_file(tmp_path / "tokenizer.json", "unigram", [("<s>", True)])
    text, before = "some words 2024", Tokenizer.from_file(str(path))
    assert text_tokenizer(path)[0].encode(text, add_special_tokens=False).ids == before.encode(text).ids


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text('{"version": "1.0"', encoding="utf-8")
    with pytest.raises(BundleError, match=r"tokenizer.json is damaged .*delete .* and prepare again"):
        text_tokenizer(path)
