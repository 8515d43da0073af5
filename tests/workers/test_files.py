"""Files appear whole or not at all, and nothing that is needed is swept away."""

from __future__ import annotations

import errno
import io
import os
import pickle
import time
from pathlib import Path

import pytest

from workers.errors import TooLarge, Unavailable
from workers.files import Files, writing

OLD_S = 1_000.0


class Broken(io.BytesIO):
    """A stream whose second read fails."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise KeyboardInterrupt
        return super().read(size)


def spool(files: Files, data: bytes, max_bytes: int = 100) -> str:
    return files.spool(io.BytesIO(data), max_bytes=max_bytes, label="a.jpg")


def age(path: Path) -> None:
    os.utime(path, times=(time.time() - OLD_S, time.time() - OLD_S))


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def write_and_fail(path: Path, error: BaseException) -> None:
    with writing(path) as target:
        target.write(b"half")
        raise error


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.jpg"
    with writing(path) as target:
        target.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert everything(tmp_path) == ["c.jpg"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_file_that_fails_half_way_leaves_the_old_one(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"old")
    with pytest.raises(error):
        write_and_fail(path, error())
    assert path.read_bytes() == b"old"
    assert everything(tmp_path) == ["a.jpg"]


def test_a_full_disk_is_named_with_its_remedy(tmp_path: Path) -> None:
    """A disk tells of its end at a write, so the error is made there."""
    path = tmp_path / "a.jpg"
    with pytest.raises(Unavailable, match=r"a\.jpg cannot be written: No space left") as caught:
        write_and_fail(path, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert caught.value.code == "cannot_write"
    assert "Free some space" in caught.value.remedy
    assert everything(tmp_path) == []


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"")
    with pytest.raises(Unavailable, match="cannot be written") as caught:
        spool(Files(tmp_path), b"data")
    assert caught.value.code == "cannot_write"


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    with pytest.raises(Unavailable, match="Is a directory"), writing(tmp_path / "a.jpg"):
        pass
    assert everything(tmp_path) == []


def test_an_upload_is_spooled_under_a_name_of_ours(tmp_path: Path) -> None:
    files = Files(tmp_path)
    names = [files.spool(io.BytesIO(b"data"), max_bytes=4, label="../../x") for _ in range(2)]
    assert names[0] != names[1]
    assert [files.spooled(name).read_bytes() for name in names] == [b"data"] * 2
    assert everything(tmp_path) == sorted(names)


def test_an_upload_over_the_limit_leaves_nothing(tmp_path: Path) -> None:
    files = Files(tmp_path)
    with pytest.raises(TooLarge, match=r"a\.jpg has more than 99 bytes") as caught:
        spool(files, b"x" * 100, max_bytes=99)
    assert caught.value.code == "too_many_bytes"
    assert everything(tmp_path) == []


def test_an_upload_is_not_read_on_when_it_is_over_the_limit(tmp_path: Path) -> None:
    stream = io.BytesIO(bytes(5 << 20))
    with pytest.raises(TooLarge):
        Files(tmp_path).spool(stream, max_bytes=10, label="a.jpg")
    assert stream.tell() < 5 << 20


def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Files(tmp_path).spool(Broken(b"data"), max_bytes=100, label="a.jpg")
    assert everything(tmp_path) == []


def test_an_original_outlives_its_spooled_file(tmp_path: Path) -> None:
    files = Files(tmp_path)
    spooled = files.spooled(spool(files, b"data"))
    image_id = "ab" * 16
    for _ in range(2):  # as at a second delivery
        files.keep_original(spooled, image_id)
    files.drop(spooled)
    files.drop(spooled)
    assert files.original(image_id).read_bytes() == b"data"


def test_an_original_is_copied_where_files_cannot_have_two_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    files = Files(tmp_path)
    spooled = files.spooled(spool(files, b"data"))
    files.keep_original(spooled, "ab" * 16)
    assert files.original("ab" * 16).read_bytes() == b"data"


def test_an_original_whose_spooled_file_is_gone_is_named(tmp_path: Path) -> None:
    files = Files(tmp_path)
    with pytest.raises(Unavailable, match="cannot be written: No such file") as caught:
        files.keep_original(files.spooled("gone"), "ab" * 16)
    assert caught.value.code == "cannot_write"


def test_the_sweep_deletes_what_is_old_and_not_needed(tmp_path: Path) -> None:
    files = Files(tmp_path)
    needed, forgotten, young = (spool(files, b"x") for _ in range(3))
    left_over = files.spooled(".half.123.abcd")  # of a process that was killed
    left_over.write_bytes(b"")
    for path in (files.spooled(needed), files.spooled(forgotten), left_over):
        age(path)
    assert files.sweep_spool(needed=lambda: {needed}, older_than_s=OLD_S / 2) == 2
    assert everything(tmp_path) == sorted([needed, young])


def test_the_sweep_asks_nobody_when_there_is_nothing_old(tmp_path: Path) -> None:
    files = Files(tmp_path)

    def nobody() -> set[str]:
        raise AssertionError

    assert files.sweep_spool(needed=nobody, older_than_s=OLD_S) == 0
    spool(files, b"x")
    assert files.sweep_spool(needed=nobody, older_than_s=OLD_S) == 0


def test_files_can_be_sent_to_another_process(tmp_path: Path) -> None:
    assert pickle.loads(pickle.dumps(Files(tmp_path))) == Files(tmp_path)
