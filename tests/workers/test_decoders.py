"""Decoding in children: whatever a file does to one, only that file pays for it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.workers.pictures import folder_of, jpeg
from tests.workers.test_decode import LIMITS, PREPROCESS
from workers.decode import Decoded, decode, image_id_of
from workers.decoders import Decoders, ToDecode
from workers.errors import Unavailable
from workers.files import Files
from workers.records import Failure, ItemState
from workers.settings import Settings

PATIENCE_S = 60.0
BUSY_TICKS = 120  # far more processor time than a child needs to start


@contextmanager
def decoding(tmp_path: Path, *, processes: int = 1, **given: object) -> Iterator[Decoders]:
    settings = Settings(data_dir=tmp_path / "data", **given)  # type: ignore[arg-type]
    decoders = Decoders(settings, PREPROCESS, Files(settings.data_dir), processes=processes)
    try:
        yield decoders
    finally:
        decoders.close()


def to_decode(paths: Sequence[Path]) -> list[ToDecode]:
    return [ToDecode(path, path.name) for path in paths]


def slow_jpeg(path: Path) -> Path:
    """Write a picture of half a megabyte that takes a minute to decode, as an attacker would.

    A progressive JPEG may repeat its last scan, and every repetition goes over all pixels.
    """
    out = io.BytesIO()
    Image.new("L", (4_000, 4_000)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    path.write_bytes(data[:-2] + last_scan * 6_000 + data[-2:])
    return path


def children() -> set[int]:
    """Return the pids of this process's decoding children."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            command = Path("/proc", pid, "cmdline").read_bytes()
            if b"spawn_main" in command:
                found.add(int(pid))
    return found


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_busy(pid: int) -> bool:
    """Return whether a child has worked for longer than starting and a small picture take."""
    try:
        fields = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[11]) + int(fields[12]) > BUSY_TICKS


def test_files_are_decoded_in_their_order_with_their_thumbnails(tmp_path: Path) -> None:
    paths = sorted(folder_of(tmp_path / "photos", range(20)).iterdir())
    paths[3].write_bytes(b"")
    paths[11].write_bytes(b"<html>")
    with decoding(tmp_path, processes=2) as decoders:
        results = decoders.decode(to_decode(paths))
    files = Files(tmp_path / "data")
    assert [isinstance(result, Failure) for result in results] == [
        number in (3, 11) for number in range(20)
    ]
    for path, result in zip(paths, results, strict=True):
        if isinstance(result, Failure):
            assert path.name in result.problem.message
            assert result.state is ItemState.REJECTED
        else:
            here, _ = decode(path.read_bytes(), label="", preprocess=PREPROCESS, limits=LIMITS)
            assert result.id == here.id
            assert np.array_equal(result.pixels, here.pixels)
            assert files.thumbnail(result.id).read_bytes().startswith(b"\xff\xd8")


def test_a_query_has_its_thumbnail_apart_from_the_collection(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(1))
    with decoding(tmp_path) as decoders:
        decoders.decode([ToDecode(path, "a.jpg", ticket="ticket")])
    files = Files(tmp_path / "data")
    assert files.query_thumbnail("ticket").is_file()
    assert not files.thumbnail(image_id_of(path.read_bytes())).exists()


def test_nothing_to_decode_starts_no_child(tmp_path: Path) -> None:
    with decoding(tmp_path) as decoders:
        assert decoders.decode([]) == []
        assert children() == set()


def test_a_file_that_takes_too_long_is_refused_and_the_others_are_not(tmp_path: Path) -> None:
    paths = sorted(folder_of(tmp_path / "photos", range(3)).iterdir())
    paths.insert(1, slow_jpeg(tmp_path / "slow.jpg"))
    with decoding(tmp_path, decode_timeout_s=1.5) as decoders:
        results = decoders.decode(to_decode(paths))
    assert [isinstance(result, Decoded) for result in results] == [True, False, True, True]
    (failure,) = (result for result in results if isinstance(result, Failure))
    assert failure.state is ItemState.REJECTED
    assert failure.problem.code == "decode_timeout"
    assert failure.problem.message == "slow.jpg took more than 1.5 s to decode."
    assert "LOOKALIKE_DECODE_TIMEOUT_S" in failure.problem.remedy


def test_a_file_whose_decoder_is_killed_fails_alone(tmp_path: Path) -> None:
    """The kernel ends a process that takes too much memory just so."""
    paths = sorted(folder_of(tmp_path / "photos", range(2)).iterdir())
    paths.append(slow_jpeg(tmp_path / "slow.jpg"))
    with (
        decoding(tmp_path, decode_timeout_s=PATIENCE_S) as decoders,
        ThreadPoolExecutor(1) as thread,
    ):
        future = thread.submit(decoders.decode, to_decode(paths))
        deadline = time.monotonic() + PATIENCE_S
        while not future.done() and time.monotonic() < deadline:
            for pid in filter(is_busy, children()):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        results = future.result(PATIENCE_S)
        again = decoders.decode(to_decode(paths[:1]))
    assert [isinstance(result, Decoded) for result in (*results, *again)] == [
        *(True, True, False),
        True,
    ]
    assert isinstance(results[2], Failure)
    assert results[2].state is ItemState.FAILED
    assert results[2].problem.code == "decoder_died"


def test_a_child_that_dies_idle_is_replaced(tmp_path: Path) -> None:
    files = to_decode(sorted(folder_of(tmp_path / "photos", range(10)).iterdir()))
    with decoding(tmp_path, processes=2) as decoders:
        for _ in range(2):
            assert all(isinstance(result, Decoded) for result in decoders.decode(files))
            doomed = children()
            for pid in doomed:
                os.kill(pid, signal.SIGKILL)
            eventually(lambda gone=doomed: not any(is_alive(pid) for pid in gone))  # type: ignore[misc]
        assert all(isinstance(result, Decoded) for result in decoders.decode(files))


def test_an_image_that_needs_more_memory_than_a_decoder_may_have_is_refused(
    tmp_path: Path,
) -> None:
    large, small = tmp_path / "large.png", tmp_path / "small.jpg"
    Image.new("L", (10_000, 10_000)).save(large, compress_level=1)
    small.write_bytes(jpeg(1))
    with decoding(tmp_path, decode_memory_bytes=700 << 20) as decoders:
        refused, taken = decoders.decode(to_decode([large, small]))
    assert isinstance(taken, Decoded)
    assert isinstance(refused, Failure)
    assert refused.problem.code == "too_much_memory"
    assert "LOOKALIKE_DECODE_MEMORY_BYTES" in refused.problem.remedy


def test_a_thumbnail_that_cannot_be_written_is_no_fault_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(1))
    (tmp_path / "data").write_bytes(b"in the way")
    with decoding(tmp_path) as decoders, pytest.raises(Unavailable) as caught:
        decoders.decode(to_decode([path]))
    assert caught.value.code == "cannot_write"
    assert "thumbnails" in caught.value.message
    assert "Free some space" in caught.value.remedy


def test_several_threads_share_the_children(tmp_path: Path) -> None:
    files = to_decode(sorted(folder_of(tmp_path / "photos", range(12)).iterdir()))
    gate = threading.Barrier(3)

    def work(_: int) -> list[str]:
        gate.wait()
        return [result.id for result in decoders.decode(files) if isinstance(result, Decoded)]

    with decoding(tmp_path, processes=2) as decoders, ThreadPoolExecutor(3) as threads:
        found = list(threads.map(work, range(3)))
    assert found == [[image_id_of(file.path.read_bytes()) for file in files]] * 3


def test_closing_ends_the_children_and_may_be_done_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(1))
    with decoding(tmp_path) as decoders:
        decoders.decode(to_decode([path]))
        (pid,) = children()
        decoders.close()
        assert not is_alive(pid)
        decoders.close()
        with pytest.raises(Unavailable, match="closed"):
            decoders.decode(to_decode([path]))


def test_closing_in_the_middle_ends_the_wait(tmp_path: Path) -> None:
    path = slow_jpeg(tmp_path / "slow.jpg")
    with (
        decoding(tmp_path, decode_timeout_s=PATIENCE_S) as decoders,
        ThreadPoolExecutor(1) as thread,
    ):
        future = thread.submit(decoders.decode, to_decode([path] * 20))
        eventually(lambda: any(map(is_busy, children())))
        decoders.close()
        with pytest.raises(Unavailable, match="closed"):
            future.result(PATIENCE_S)


def test_children_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg(1))
    command = [sys.executable, "-m", "tests.workers.decoding_parent", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        listed = Path(f"/proc/{parent.pid}/task").glob("*/children")
        pids = {int(pid) for each in listed for pid in each.read_text().split()}
        assert len(pids) >= 2
        parent.kill()
    eventually(lambda: not any(is_alive(pid) for pid in pids))


def test_parts_come_in_the_order_of_the_files_and_hold_them_all(tmp_path: Path) -> None:
    paths = sorted(folder_of(tmp_path / "photos", range(20)).iterdir())
    with decoding(tmp_path, processes=2) as decoders:
        parts = list(decoders.decode_in_parts(to_decode(paths)))
        whole = decoders.decode(to_decode(paths))
    assert len(parts) > 1
    ids = [image_id_of(path.read_bytes()) for path in paths]
    assert [entry.id for part in parts for entry in part if isinstance(entry, Decoded)] == ids
    assert [entry.id for entry in whole if isinstance(entry, Decoded)] == ids
