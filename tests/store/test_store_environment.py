"""Map growth, threads, and what a bad disk, folder or file gets."""

import errno
import fcntl
import os
import resource
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lmdb
import numpy as np
import pytest
from lmdb.verify import _Verifier
from store_world import make_id, make_image, make_query, make_spec, run_in_fork

from store import (
    NotAStore,
    Shard,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreMismatch,
    StoreReadOnly,
    StoreVersionError,
)
from store.environment import translated
from store.layout import HEAD
from store.segments import SEGMENT_ROWS

ROOT = Path(__file__).parent.parent.parent
TINY = 1 << 16


def fill(path, count=200, **options):
    with Shard.open(path, make_spec(), **options) as shard:
        shard.insert([make_image(number) for number in range(count)])


def data_file(path):
    return path / "data.mdb"


def test_a_tiny_map_grows_by_itself(tmp_path):
    with Shard.open(tmp_path, make_spec(), map_bytes=TINY) as shard:
        sizes = set()
        for start in range(0, 1000, 50):
            shard.insert([make_image(number) for number in range(start, start + 50)])
            sizes.add(shard.stats().map_bytes)
        assert len(sizes) > 2
        assert shard.count() == 1000
        assert shard.check().problems == ()
    with Shard.open(tmp_path, make_spec(), map_bytes=TINY) as shard:
        assert shard.stats().map_bytes == max(sizes)


def test_one_batch_may_be_larger_than_the_map(tmp_path):
    fill(tmp_path, 1500, map_bytes=TINY)
    with Shard.open_existing(tmp_path) as shard:
        assert shard.count() == 1500


def test_a_delete_may_need_a_larger_map_too(tmp_path):
    with Shard.open(tmp_path, make_spec(), map_bytes=TINY) as shard:
        ids = [make_id(number) for number in range(600)]
        shard.insert([make_image(number) for number in range(600)])
        for start in range(0, 600, 20):
            shard.delete(ids[start : start + 20])
        assert shard.count() == 0
        assert shard.check().problems == ()


def test_threads_share_a_store_while_its_map_grows(tmp_path):
    stop = threading.Event()

    def look(shard):
        searches = 0
        while not stop.is_set():
            answer = shard.search(make_query(make_image(3), k=5))
            assert len(answer) == min(5, answer.reranked)
            searches += 1
        return searches

    with (
        Shard.open(tmp_path, make_spec(), map_bytes=TINY) as shard,
        ThreadPoolExecutor(5) as pool,
    ):
        readers = [pool.submit(look, shard) for _ in range(2)]
        batches = [[make_image(n) for n in range(i, i + 20)] for i in range(0, 800, 20)]
        writers = [pool.submit(shard.insert, batch) for batch in batches]
        assert all(outcome.created for future in writers for outcome in future.result())
        stop.set()
        assert all(future.result() for future in readers)
        assert shard.count() == 800
        assert shard.check().problems == ()


def test_closing_waits_for_the_searches_of_other_threads(tmp_path):
    fill(tmp_path)
    shard = Shard.open(tmp_path, make_spec())
    inside, go_on = threading.Event(), threading.Event()

    def slow(store):
        inside.set()
        assert go_on.wait(10)
        return store.count()

    with ThreadPoolExecutor(2) as pool:
        reading = pool.submit(shard._read, slow)
        assert inside.wait(10)
        closing = pool.submit(shard.close)
        assert not closing.done()
        go_on.set()
        assert reading.result() == 200
        closing.result()


def test_a_failing_change_leaves_the_store_as_it_was(tmp_path):
    with Shard.open(tmp_path, make_spec()) as shard:
        shard.insert([make_image(1)])
        with pytest.raises(AttributeError):
            shard.insert([make_image(2), object()])
        with pytest.raises(TypeError):
            shard.delete([make_id(1), 5])
        assert shard.count() == 1
        assert shard.insert([make_image(3)])[0].created
        assert shard.check().problems == ()


def run_limited(limit, code, path):
    """Run code in a process with a resource limit and return what it printed."""
    script = f"""
import resource, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "store")!r}]
from store_world import *
from store import *
path = {str(path)!r}
shard = Shard.open(path, make_spec(), map_bytes=1 << 16)
resource.setrlimit(resource.{limit[0]}, ({limit[1]}, resource.RLIM_INFINITY))
{code}
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FILL_UNTIL_FULL = """
stored = 0
try:
    for start in range(0, 5000, 100):
        numbers = range(start, start + 100)
        shard.insert([make_image(number, source=SOURCE % number) for number in numbers])
        stored += 100
except StoreFull as error:
    print(error)
print(stored, shard.count(), shard.check().problems)
"""


EMPTY_SEGMENT_BYTES = SEGMENT_ROWS * HEAD.itemsize


@pytest.mark.parametrize(
    ("limit", "source"),
    [
        pytest.param(EMPTY_SEGMENT_BYTES + 10_000, "%d", id="in the features"),
        pytest.param(EMPTY_SEGMENT_BYTES + 50_000, "%d" + "x" * 2000, id="in the tables"),
    ],
)
def test_a_full_disk_stores_nothing_and_says_so(tmp_path, limit, source):
    # A limit on file size fails the same write that a full disk fails.
    code = f"SOURCE = {source!r}\n{FILL_UNTIL_FULL}"
    said = run_limited(("RLIMIT_FSIZE", limit), code, tmp_path).splitlines()
    assert "nothing of this change was stored: free some space and repeat it" in said[0]
    assert int(said[1].split(" ")[0]) > 0
    stored, count, problems = said[1].split(" ", 2)
    assert (stored, problems) == (count, "()")
    with Shard.open(tmp_path, make_spec()) as shard:
        assert shard.count() == int(stored)
        assert shard.check().problems == ()
        shard.insert([make_image(number) for number in range(2000)])
        assert shard.count() == 2000


GROW_WITHOUT_ADDRESS_SPACE = """
shard.close()
shard = Shard.open(path, make_spec(), map_bytes=1 << 28)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 27), resource.RLIM_INFINITY))
try:
    shard._env._grow(1 << 28)
except StoreFull as error:
    print(error)
print(shard.insert([make_image(1)]), shard.count(), shard.stats().map_bytes == 1 << 28)
"""


def test_a_map_that_cannot_grow_leaves_the_store_in_use(tmp_path):
    limit = ("RLIMIT_AS", "resource.RLIM_INFINITY")
    said = run_limited(limit, GROW_WITHOUT_ADDRESS_SPACE, tmp_path).splitlines()
    assert "cannot grow by 268435456 bytes" in said[0]
    assert "raise the limit on address space (ulimit -v)" in said[0]
    assert said[1].endswith("created=True)] 1 True")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_every_way_to_be_out_of_space_is_named(code):
    with pytest.raises(StoreFull, match="free some space"), translated(Path("x")):
        raise OSError(code, "no room")


def open_as_somebody(parent, name):
    """Open a store without the rights of root, which permissions do not stop."""
    os.chdir(parent)
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    return Shard.open(name, make_spec())


@pytest.mark.parametrize("name", ["shard", "shard/new"])
def test_a_folder_that_may_not_be_written_is_named(tmp_path, name):
    folder = tmp_path / "shard"
    fill(folder)
    tmp_path.chmod(0o755)
    folder.chmod(0o555)
    for file in folder.iterdir():
        file.chmod(0o444)
    said = run_in_fork(lambda: open_as_somebody(tmp_path, name))
    folder.chmod(0o755)
    assert said.startswith("StoreReadOnly")
    assert "give this user write access to the folder" in said


def test_features_that_may_not_be_written_are_named_and_can_be_searched(tmp_path):
    folder = tmp_path / "shard"
    fill(folder)
    tmp_path.chmod(0o755)
    folder.chmod(0o777)
    for file in (data_file(folder), folder / "lock.mdb"):
        file.chmod(0o666)
    for path in (folder / "segments", *(folder / "segments").iterdir()):
        path.chmod(0o555)

    def search_and_insert():
        shard = open_as_somebody(tmp_path, "shard")
        assert len(shard.search(make_query(make_image(1), k=300))) == 200
        shard.insert([make_image(1000)])

    said = run_in_fork(search_and_insert)
    assert said.startswith("StoreReadOnly")
    assert "give this user write access to the folder" in said
    with Shard.open(folder, make_spec()) as shard:
        assert shard.count() == 200
        assert shard.check().problems == ()


def test_a_path_that_is_a_file_is_no_store(tmp_path):
    path = tmp_path / "file"
    path.write_text("hello")
    for use in (lambda: Shard.open(path, make_spec()), lambda: Shard.open_existing(path)):
        with pytest.raises(NotAStore, match="take another path"):
            use()


def test_a_missing_or_empty_folder_is_no_store_that_exists(tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotAStore, match="ingest first"):
            Shard.open_existing(path)
    assert list(tmp_path.iterdir()) == []


def test_a_data_file_of_something_else_is_no_store(tmp_path):
    data_file(tmp_path).write_bytes(b"not LMDB at all" * 1000)
    with pytest.raises(NotAStore, match="take another path"):
        Shard.open(tmp_path, make_spec())


def test_an_lmdb_file_of_another_program_is_no_store(tmp_path):
    with lmdb.open(str(tmp_path)) as env, env.begin(write=True) as txn:
        txn.put(b"key", b"value")
    for use in (lambda: Shard.open(tmp_path, make_spec()), lambda: Shard.open_existing(tmp_path)):
        with pytest.raises(NotAStore, match="holds no image store"):
            use()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_noticed_at_opening(tmp_path, share):
    fill(tmp_path)
    size = data_file(tmp_path).stat().st_size
    os.truncate(data_file(tmp_path), int(size * share))
    with pytest.raises(StoreDamaged, match="restore a backup"):
        Shard.open(tmp_path, make_spec())
    with pytest.raises(StoreDamaged):
        Shard.open_existing(tmp_path)


def test_a_file_cut_within_its_header_is_noticed_at_opening(tmp_path):
    fill(tmp_path)
    os.truncate(data_file(tmp_path), 100)
    with pytest.raises(StoreDamaged, match="restore a backup"):
        Shard.open(tmp_path, make_spec())


def walk(path):
    """Return the last page in use, the number of pages and their size."""
    with data_file(path).open("rb") as file:
        verifier = _Verifier(file, data_file(path).stat().st_size)
        assert verifier.verify() == []
    last = int(np.flatnonzero(np.frombuffer(verifier.live, np.uint8)).max())
    return last, verifier.next_pgno, verifier.psize


def test_a_file_that_lacks_only_free_pages_opens(tmp_path):
    # After some deletes the pages at the end are free, sooner or later.
    for count in range(100, 400):
        fill(tmp_path, count)
        with Shard.open(tmp_path, make_spec()) as shard:
            shard.delete([make_id(number) for number in range(count)])
            shard.insert([make_image(1)])
        last, pages, page_bytes = walk(tmp_path)
        if last + 1 < pages:
            break
    assert last + 1 < pages
    os.truncate(data_file(tmp_path), (last + 1) * page_bytes)
    with Shard.open(tmp_path, make_spec()) as shard:
        assert shard.count() == 1
    os.truncate(data_file(tmp_path), last * page_bytes)
    with pytest.raises(StoreDamaged, match="cut off"):
        Shard.open(tmp_path, make_spec())


def test_a_store_of_another_bundle_is_refused_and_both_are_named(tmp_path):
    fill(tmp_path)
    with pytest.raises(StoreMismatch) as refusal:
        Shard.open(tmp_path, make_spec(bundle_id="other@ba9876543210"))
    for part in ("tiny@0123456789ab", "other@ba9876543210", "go back to that bundle"):
        assert part in str(refusal.value)
    with pytest.raises(StoreMismatch, match="metric"):
        Shard.open(tmp_path, make_spec(metric="l2"))
    with pytest.raises(StoreMismatch, match="bits"):
        Shard.open(tmp_path, make_spec(16))


def test_other_centres_are_another_bundle(tmp_path):
    centres = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with Shard.open(tmp_path, make_spec(32, centres=centres)) as shard:
        shard.insert([make_image(1, 32)])
    for other in (None, centres + 1, centres[:2]):
        with pytest.raises(StoreMismatch, match="centre"):
            Shard.open(tmp_path, make_spec(32, centres=other))
    with Shard.open(tmp_path, make_spec(32, centres=centres)) as shard:
        assert shard.count() == 1
    with Shard.open_existing(tmp_path) as shard:
        assert (shard.spec.centres == centres).all()
        assert shard.check().problems == ()


def test_a_newer_format_is_refused(tmp_path):
    fill(tmp_path)
    with lmdb.open(str(tmp_path), max_dbs=8, lib_version=0) as env:
        meta = env.open_db(b"meta")
        with env.begin(write=True) as txn:
            txn.put(b"format", b"3", db=meta)
    for use in (lambda: Shard.open(tmp_path, make_spec()), lambda: Shard.open_existing(tmp_path)):
        with pytest.raises(StoreVersionError, match=r"format 3.*up to 2.*upgrade"):
            use()


BAD_SPECS = {
    "no bits": {"bits": 0},
    "too many bits": {"bits": 3969},
    "metric": {"metric": "hamming"},
    "centres for short codes": {"bits": 20, "centres": np.zeros((2, 3), np.uint8)},
    "centres of another width": {"bits": 128, "centres": np.zeros((2, 3), np.uint8)},
    "centres of another type": {"bits": 32, "centres": np.zeros((2, 4))},
    "no centres": {"bits": 32, "centres": np.zeros((0, 4), np.uint8)},
}


@pytest.mark.parametrize("options", BAD_SPECS.values(), ids=BAD_SPECS.keys())
def test_a_spec_that_contradicts_itself_is_refused(tmp_path, options):
    with pytest.raises(ValueError, match=r"expected|leave the centres out"):
        Shard.open(tmp_path / "shard", make_spec(**options))
    assert not (tmp_path / "shard").exists()


def test_the_longest_codes_fit(tmp_path):
    with Shard.open(tmp_path, make_spec(3968)) as shard:
        shard.insert([make_image(number, 3968) for number in range(10)])
        assert shard.search(make_query(make_image(3, 3968), k=1)).names() == [make_id(3)]
        assert shard.check().problems == ()


def test_a_store_may_be_copied_while_closed(tmp_path):
    fill(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    with (
        Shard.open(tmp_path / "one", make_spec()) as one,
        Shard.open(tmp_path / "two", make_spec()) as two,
    ):
        one.delete([make_id(1)])
        assert (one.count(), two.count()) == (199, 200)


def test_every_error_of_a_store_is_a_store_error():
    for error in (NotAStore, StoreDamaged, StoreFull, StoreMismatch, StoreReadOnly):
        assert issubclass(error, StoreError)
    assert resource.RLIM_INFINITY == -1


def test_a_store_is_opened_by_one_process_after_another(tmp_path):
    fill(tmp_path)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as whoever fills the lock file anew
    with ThreadPoolExecutor(1) as threads:
        opening = threads.submit(Shard.open, tmp_path, make_spec())
        with pytest.raises(TimeoutError):
            opening.result(timeout=0.2)
        os.close(descriptor)  # as when it is killed
        opening.result(timeout=60).close()
    Shard.open(tmp_path, make_spec()).close()


def test_writers_wait_in_the_kernel_which_forgets_those_that_are_killed(tmp_path):
    fill(tmp_path)
    with Shard.open(tmp_path, make_spec()) as shard, ThreadPoolExecutor(1) as threads:
        descriptor = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # as another process that writes
        writing = threads.submit(shard.delete, [make_id(1)])
        with pytest.raises(TimeoutError):
            writing.result(timeout=0.2)
        assert shard.count() == 200, "a reader waits for nobody"
        os.close(descriptor)  # as when it is killed
        assert writing.result(timeout=60) == [True]
