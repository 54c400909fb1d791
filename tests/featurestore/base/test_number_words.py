"""Figures as people read them: words where they are tiny, and one unit that suits."""

from __future__ import annotations

import pytest

from featurestore.base.number_words import about, error_kind, money, share, size, span, there, told_apart


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1234, "1.2 kB"),
        (5e6, "5.0 MB"),
        (7.25e9, "7.2 GB"),
        (1e18, "1,000,000.0 TB"),
    ],
)
def test_bytes_have_the_unit_that_suits_them(n_bytes: float, said: str) -> None:
    assert size(n_bytes) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "under a second"),
        (3.3e-6, "under a second"),
        (1.44, "1.4 s"),
        (59.6, "60 s"),
        (119, "119 s"),
        (150, "2.5 min"),
        (3600, "60 min"),
        (9000, "2.5 hours"),
        (4.464e6, "1,240 hours"),
    ],
)
def test_a_length_of_time_has_the_unit_that_suits_it(seconds: float, said: str) -> None:
    assert span(seconds) == said


@pytest.mark.parametrize(
    ("amount", "currency", "said"),
    [(0, "USD", "0.00 USD"), (7e-10, "USD", "under 0.01 USD"), (0.8, None, "0.80"), (1234.5, "EUR", "1,234.50 EUR")],
)
def test_money_is_never_a_power_of_ten(amount: float, currency: str | None, said: str) -> None:
    assert money(amount, currency) == said


@pytest.mark.parametrize(
    ("part", "whole", "said"),
    [(0, 5, "0%"), (1, 10**6, "under 0.1%"), (1, 8, "12.5%"), (10**6 - 1, 10**6, "over 99.9%"), (5, 5, "100%")],
)
def test_a_share_is_none_or_all_only_where_it_is(part: int, whole: int, said: str) -> None:
    assert share(part, whole) == said


def test_what_says_under_is_not_about_something() -> None:
    assert (about("under a second"), about("5 min")) == ("under a second", "about 5 min")


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("the text in 'body' is not UTF-8", "the text in '...' is not UTF-8"),
        ("row 7 is not UTF-16, 3 bytes are left", "row N is not UTF-16, N bytes are left"),
        ("ISO-8859-1 and latin-1 and cp1252", "ISO-8859-1 and latin-1 and cp1252"),
        ("no int64 but 12 float32 values", "no int64 but N float32 values"),
        ("the text is 3.5 MB, d42 at -5", "the text is N MB, dN at -N"),
        ("at 0x7f3a11", "at NxNfNaN"),
    ],
)
def test_a_kind_of_error_has_no_numbers_but_those_that_are_part_of_a_name(sentence: str, kind: str) -> None:
    assert error_kind(sentence) == kind


def test_one_is_there_and_several_are() -> None:
    assert [there(n) for n in (1, 2, 1200)] == ["1 is there", "2 are there", "1,200 are there"]


def test_numbers_that_read_alike_have_all_their_digits() -> None:
    assert told_apart([0.2, 0.2000001, 0.1234567, 1e6]) == {
        0.2: "0.2",
        0.2000001: "0.2000001",
        0.1234567: "0.123457",
        1e6: "1e+06",
    }
    assert list(told_apart([1234567, 1234568]).values()) == ["1234567", "1234568"]
