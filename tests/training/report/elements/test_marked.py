"""A window of text around the strongest token, tokens marked by how strongly they fire."""

from __future__ import annotations

from featurestore.evidence.records import DocumentEvidence, FeatureEvidence, Token
from training.report.elements.marked import AFTER, BEFORE, Span, marked

KEY = ("l9_4k", 7)


def document(words: list[str], values: list[float], gap: int = 0) -> DocumentEvidence:
    tokens, start = [Token("<bos>", 0, 0, False)], 0
    for word in words:
        tokens.append(Token(word, start, start + len(word), True))
        start += len(word) + gap
    values = [0.0, *values]
    return DocumentEvidence("d", tuple(tokens), (FeatureEvidence(*KEY, tuple(values), max(values), sum(values)),))


def test_marks_are_relative_to_the_largest_value_of_the_page() -> None:
    found = marked(document(["weak", " strong"], [1.0, 5.0]), {KEY: 10.0}, {})
    assert found.spans == (Span("weak", 1, "a", "1"), Span(" ", 0), Span("strong", 2, "a", "5"))
    assert marked(document(["a"], [10.0]), {KEY: 10.0}, {}).spans[0].strength == 5


def test_the_window_is_around_the_peak_and_says_that_the_text_goes_on() -> None:
    words = [f"w{i} " for i in range(100)]
    found = marked(document(words, [9.0 if i == 50 else 0.0 for i in range(100)]), {}, {})
    text = "".join(span.text for span in found.spans)
    assert text.startswith(f"w{50 - BEFORE} ") and text.rstrip().endswith(f"w{50 + AFTER}")
    assert found.before and found.after


def test_what_no_token_covers_is_a_space_and_a_token_that_covers_nothing_is_nothing() -> None:
    one = document(["ab", "cd"], [0.0, 1.0], gap=1)
    assert "".join(span.text for span in marked(one, {}, {}).spans) == "ab cd"
    twice = DocumentEvidence(
        "d",
        (Token("ü", 0, 1, True), Token("", 1, 1, True)),
        (FeatureEvidence(*KEY, (0.0, 2.0), 2.0, 2.0),),
    )
    assert "".join(span.text for span in marked(twice, {}, {}).spans) == "ü"


def test_the_strongest_of_several_features_marks_a_token_with_its_side() -> None:
    other = ("l9_4k", 8)
    one = document(["x"], [1.0])
    both = DocumentEvidence("d", one.tokens, (*one.features, FeatureEvidence(*other, (0.0, 3.0), 3.0, 3.0)))
    assert marked(both, {KEY: 4.0, other: 4.0}, {KEY: "a", other: "b"}).spans[0].side == "b"


def test_a_document_without_tokens_has_no_spans() -> None:
    assert marked(DocumentEvidence("d", (), (FeatureEvidence(*KEY, (), 0.0, 0.0),)), {}, {}).spans == ()
