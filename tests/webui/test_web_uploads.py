"""Names of uploaded files, and where their bytes go."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.webui.test_web_errors import site_with
from tests.webui.world import API
from webui.uploads import label_of
from workers.errors import Failed


@pytest.mark.parametrize(
    ("filename", "label"),
    [
        ("cat.jpg", "cat.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\cat.jpg", "cat.jpg"),
        ("a\r\nSet-Cookie: b.png", "a Set-Cookie: b.png"),
        ("gpj.\u202etac.exe", "gpj. tac.exe"),
        ("  \t ", "unnamed"),
        ("", "unnamed"),
        ("/", "unnamed"),
        ("katze-\u00fc\u732b.png", "katze-\u00fc\u732b.png"),
    ],
)
def test_a_label_is_what_a_person_would_call_the_file(filename: str, label: str) -> None:
    assert label_of(filename) == label


@given(st.text(max_size=400))
def test_a_label_is_a_short_line_of_visible_text_and_settled(filename: str) -> None:
    label = label_of(filename)
    assert 1 <= len(label) <= 120
    assert "/" not in label
    assert "\\" not in label
    assert not any(unicodedata.category(char).startswith("C") for char in label)
    assert label_of(label) == label.strip()


def test_a_large_upload_goes_to_disk_and_leaves_nothing_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    client = site_with(Failed("stop here")).test_client()

    def watch(*, upload: tuple[str, object], **_: object) -> None:
        descriptor = upload[1].fileno()  # type: ignore[attr-defined]
        seen.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        raise Failed("stop here")

    site = client.application.extensions["lookalike"]
    site.client.submit_search = watch
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    file = tmp_path / "big.png"
    file.write_bytes(b"x" * 200_000)
    with file.open("rb") as stream:
        response = client.post(f"{API}/searches", data={"file": (stream, "big.png")})
    assert response.status_code == 502
    assert seen[0].startswith(f"{tmp_path}/#")
    assert seen[0].endswith("(deleted)")
    assert [path.name for path in tmp_path.iterdir()] == ["big.png"]
