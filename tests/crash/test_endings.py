"""Commands end as they should when their work is done; `endings` says how, and `make endings` does it 600 times."""

from __future__ import annotations

import pytest

from tests.crash import endings


@pytest.mark.slow
def test_no_command_is_aborted_after_its_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert endings.main(["--runs", "30"]) == 0, capsys.readouterr().err
