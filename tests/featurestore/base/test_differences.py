"""What differs between two plans, in words."""

from __future__ import annotations

from featurestore.base.differences import differences


def test_of_two_hashes_only_the_beginnings_are_said() -> None:
    old, new = ({"files": [{"name": name, "sha256": letter * 64}]} for name, letter in (("a", "a"), ("a", "b")))
    assert differences(old, new) == [f"files[0].sha256 {'a' * 12}... -> {'b' * 12}..."]
    assert differences({"name": "c" * 63}, {"name": "d"}) == [f"name {'c' * 63} -> d"]
