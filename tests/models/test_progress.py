import io
import sys

import pytest

from models.progress import progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_few_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    with progress(total=300, title="reading") as bar:
        for _ in range(300):
            bar.update(1)
        bar.set_postfix(loss="0.1")
    lines = log.getvalue().splitlines()
    assert 2 <= len(lines) <= 4
    assert all(line.startswith("reading: ") for line in lines)
    assert "300/300" in lines[-1]
    assert "image/s" in lines[-1]
    assert "\r" not in log.getvalue()


def test_a_terminal_gets_a_bar_that_begins_where_work_was_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(total=10, title="reading", begin=4, unit="page") as bar:
        bar.update(6)
    assert "\rreading:  40%" in terminal.getvalue()
    assert "10/10" in terminal.getvalue()
