import io
import sys

import pytest

from models import progress as module
from models.progress import progress


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace the clock of progress bars by the last entry of the list."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[-1])
    monkeypatch.setattr("tqdm.std.time", lambda: now[-1])
    return now


def test_a_log_gets_few_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    now = clock(monkeypatch)
    with progress(total=300, title="reading") as bar:
        for _ in range(300):
            now.append(now[-1] + 0.0401)
            bar.update(1)
        bar.set_postfix(loss="0.1", refresh=False)
    lines = log.getvalue().splitlines()
    assert len(lines) == 3  # after 5 s, 10 s, and at the end
    assert all(line.startswith("reading: ") for line in lines)
    assert "300/300" in lines[-1]
    assert "image/s" in lines[-1]
    assert "\r" not in log.getvalue()


@pytest.mark.parametrize(("seconds", "lines"), [(0.9, 0), (1.1, 1), (4.9, 1)])
def test_a_log_is_not_told_of_what_took_no_time(
    monkeypatch: pytest.MonkeyPatch, seconds: float, lines: int
) -> None:
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    now = clock(monkeypatch)
    with progress(total=2, title="reading") as bar:
        bar.update(1)
        now.append(now[-1] + seconds)
        bar.update(1)
    assert len(log.getvalue().splitlines()) == lines


def test_a_terminal_gets_a_bar_that_begins_where_work_was_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(total=10, title="reading", begin=4, unit="page") as bar:
        bar.update(6)
    assert "\rreading:  40%" in terminal.getvalue()
    assert "10/10" in terminal.getvalue()
