"""Commands on a collection, on the embedded default."""

from __future__ import annotations

import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ops.cli.console import shown
from ops.cli.exits import Exit
from tests.ops.conftest import Run, objects
from tests.workers.pictures import folder_of, jpeg


def test_ingest_tells_the_accounting_of_the_job(run: Run, photos: Path, tmp_path: Path) -> None:
    result = run("ingest", photos, "--data-dir", tmp_path / "data")
    assert result.exit_code == Exit.DONE
    assert (
        "6 submitted = 6 indexed + 0 duplicate + 0 rejected + 0 failed + 0 cancelled + 0 pending"
        in result.stdout
    )


def test_ingest_takes_folders_files_and_urls_and_tells_what_it_refused(
    run: Run, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "photos", range(100, 102))
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(jpeg(1)[:500])
    args = ["ingest", folder, cut, folder / "0100.jpg", "http://127.0.0.1:1/x.jpg"]
    result = run(*args, "--data-dir", tmp_path / "data", "--json")
    assert result.exit_code == Exit.FAILED
    done, files, urls = objects(result)
    assert done["job"]["counts"]["indexed"] == 2
    assert files["job"]["counts"]["duplicate"] == 1
    assert [each["problem"]["code"] for each in files["problems"]] == ["truncated"]
    assert files["problems"][0]["source"] == str(cut)
    assert [each["problem"]["code"] for each in urls["problems"]] == ["private_address"]


def test_ingest_reads_urls_from_standard_input(run: Run, tmp_path: Path) -> None:
    lines = b"# a comment\nhttp://127.0.0.1:1/a.jpg\n\nhttp://127.0.0.1:1/b.jpg\n"
    options = ["--urls-file", "-", "--data-dir", tmp_path / "data", "--json"]
    (told,) = objects(run("ingest", *options, stdin=lines))
    assert told["job"]["counts"]["submitted"] == 2


def test_an_empty_folder_fails_with_its_reason(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("ingest", tmp_path / "empty", "--data-dir", tmp_path / "data")
    assert result.exit_code == Exit.FAILED
    assert "holds no images" in result.stdout


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["ingest"], Exit.USAGE, "nothing to take in"),
        (["ingest", "/no/such/folder"], Exit.NOT_FOUND, "/no/such/folder"),
        (["ingest", ".", "--no-wait"], Exit.USAGE, "LOOKALIKE_BROKER_URL"),
        (["worker"], Exit.USAGE, "LOOKALIKE_BROKER_URL"),
        (["crawl", "not a url"], Exit.USAGE, "not a url"),
        (["crawl", "example.org"], Exit.USAGE, "http://"),
        (["search", "http://"], Exit.USAGE, "http://"),
        (["search", "0" * 32, "--bundle", "lite0-999"], Exit.UNAVAILABLE, "lite0-999"),
        (["search", __file__, "--bundle", "lite0-999"], Exit.UNAVAILABLE, "lite0-999"),
        (["search", __file__, "--bundle", "lite0-20"], Exit.UNAVAILABLE, "lite0-20"),
        (["crawl", "http://example.org/", "--depth", "99"], Exit.USAGE, "--depth: 99 is not"),
        (["crawl", "http://example.org/", "--max-pages", "0"], Exit.USAGE, "--max-pages: 0 is"),
        (["jobs", "show", "nope"], Exit.NOT_FOUND, "nope"),
        (["jobs", "cancel", "nope"], Exit.NOT_FOUND, "nope"),
        (["images", "show", "0" * 32], Exit.NOT_FOUND, "0" * 32),
        (["images", "delete", "0" * 32], Exit.NOT_FOUND, "0" * 32),
        (["search", "0" * 32], Exit.NOT_FOUND, "0" * 32),
        (["search", "no-such-file.jpg"], Exit.NOT_FOUND, "no-such-file.jpg"),
        (["search", "http://127.0.0.1:1/x.jpg"], Exit.FAILED, "private address"),
        (["doctor", "--bundle", "/no/bundle"], Exit.FAILED, "/no/bundle"),
        (["model", "info", "--bundle", "/no/bundle"], Exit.UNAVAILABLE, "/no/bundle"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_told_with_its_exit_code(
    run: Run, collection: Path, args: list[str], code: Exit, told: str
) -> None:
    # Nothing here writes to the collection.
    result = run(*args, env={"LOOKALIKE_DATA_DIR": str(collection)})
    assert result.exit_code == code, result.stderr
    assert told in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("url", ["redis://x", "http://x", "foo", ""])
def test_a_broker_of_another_kind_is_refused_with_the_allowed_ones(run: Run, url: str) -> None:
    by_option = run("jobs", "--broker-url", url)
    by_variable = run("jobs", env={"LOOKALIKE_BROKER_URL": url})
    for result in (by_option, by_variable):
        assert result.exit_code == Exit.USAGE
        assert "LOOKALIKE_BROKER_URL" in result.stderr
        assert "memory://, amqp://, amqps://, pyamqp://" in result.stderr


@pytest.mark.parametrize("command", ["search", "ingest"])
def test_a_path_that_cannot_be_looked_at_is_named(
    run: Run, collection: Path, command: str
) -> None:
    result = run(command, "n" * 300, "--data-dir", collection)
    assert result.exit_code == Exit.FAILED
    assert "cannot be read: File name too long" in result.stderr


def test_a_query_that_may_not_be_read_is_named(
    run: Run, collection: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg(1))
    plain_open = Path.open

    def refused(path: Path, *args: Any, **kwargs: Any) -> Any:
        # Root, as which tests may run, reads everything.
        if path == secret:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return plain_open(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refused)
    result = run("search", secret, "--data-dir", collection)
    assert result.exit_code == Exit.FAILED
    assert f"{secret} cannot be read: Permission denied." in result.stderr


def test_a_folder_is_no_query(run: Run, collection: Path, tmp_path: Path) -> None:
    result = run("search", tmp_path, "--data-dir", collection)
    assert result.exit_code == Exit.NOT_FOUND
    assert f"{tmp_path} is no file" in result.stderr


def test_a_search_finds_the_photo_itself_first(run: Run, collection: Path, photos: Path) -> None:
    query = photos / "0003.jpg"
    (found,) = objects(run("search", query, "-k", 3, "--data-dir", collection, "--json"))
    assert found["state"] == "done"
    assert [hit["rank"] for hit in found["hits"]] == [1, 2, 3]
    assert found["hits"][0]["sources"] == [str(query)]
    assert found["hits"][0]["hamming"] == 0
    assert found["report"]["complete"] is True


def test_a_search_finds_only_what_fits_and_folds_what_is_alike(run: Run, tmp_path: Path) -> None:
    data = ["--data-dir", tmp_path / "data"]
    new, old = folder_of(tmp_path / "new", range(3)), folder_of(tmp_path / "old", range(3, 6))
    with Image.open(new / "0000.jpg") as image:
        image.save(new / "copy.jpg", quality=90)
    run("ingest", new, "--label", "new", "--label", "été", *data)
    run("ingest", old, "--label", "old", *data)
    query = new / "0000.jpg"
    told = run("search", query, "--label", "new", "--source", f"{new}/0", *data)
    assert told.exit_code == Exit.DONE
    assert told.stdout.count("[new, été]") == 3
    options = ["--since", "2020-01-01", *data, "--json"]
    (apart,) = objects(run("search", query, *options))
    distance = apart["hits"][1]["distance"] + 0.001
    collapse = ["--collapse", "--collapse-distance", distance]
    (folded,) = objects(run("search", query, *collapse, *options))
    assert (apart["collapse"], folded["collapse"]) == (None, distance)
    assert folded["total"] + folded["report"]["folded"] == apart["total"] == 7
    assert apart["hits"][1]["id"] in folded["hits"][0]["duplicates"]
    stored = run("images", "show", apart["hits"][0]["id"], *data)
    assert "  labels: new, été" in stored.stdout
    (near,) = objects(run("search", query, "--max-distance", 0.001, *data, "--json"))
    assert [hit["sources"] for hit in near["hits"]] == [[str(query)]]
    nothing = run("search", query, "--until", "2020-01-01T12:00", *data)
    assert nothing.exit_code == Exit.DONE
    assert "Nothing was found that fits" in nothing.stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--since", "yesterday"], "2026-11-23T18:30"),
        (["--max-distance", "-1"], "'--max-distance': -1.0 is not in the range x>=0"),
        (["--label", "a,b"], "cannot be a label"),
        (
            ["--collapse", "--collapse-distance", "nan"],
            "'--collapse-distance': nan is not a finite number",
        ),
    ],
)
def test_an_option_of_a_search_that_cannot_be_meant_is_refused(
    run: Run, collection: Path, photos: Path, options: list[str], told: str
) -> None:
    result = run("search", photos / "0000.jpg", *options, "--data-dir", collection)
    assert result.exit_code == Exit.USAGE
    assert told in result.stderr


def test_a_label_that_cannot_be_one_starts_no_job(run: Run, photos: Path, tmp_path: Path) -> None:
    result = run("ingest", photos, "--label", " ", "--data-dir", tmp_path / "data")
    assert (result.exit_code, "cannot be a label" in result.stderr) == (Exit.USAGE, True)


def test_a_search_takes_standard_input_and_stored_images(
    run: Run, collection: Path, photos: Path
) -> None:
    data = (photos / "0002.jpg").read_bytes()
    options = ["-k", 1, "--data-dir", collection, "--json"]
    (by_bytes,) = objects(run("search", "-", *options, stdin=data))
    (by_id,) = objects(run("search", by_bytes["hits"][0]["id"], *options))
    assert by_id["hits"][0]["id"] == by_bytes["hits"][0]["id"]
    assert by_id["query"]["kind"] == "image"


def test_a_search_writes_a_contact_sheet(
    run: Run, collection: Path, photos: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.png"
    args = ["search", photos / "0000.jpg", "-k", 4, "--contact-sheet", sheet]
    result = run(*args, "--data-dir", collection)
    assert result.exit_code == Exit.DONE
    assert result.stdout.splitlines()[0] == "rank  distance  bits  source"
    assert str(sheet) in result.stderr
    with Image.open(sheet) as image:
        assert image.format == "PNG"
        assert image.width > image.height  # five cells beside one another


def test_a_contact_sheet_that_cannot_be_written_is_named(
    run: Run, collection: Path, photos: Path
) -> None:
    args = ["search", photos / "0000.jpg", "--contact-sheet", "/proc/no.png"]
    result = run(*args, "--data-dir", collection)
    assert result.exit_code == Exit.FAILED
    assert "/proc/no.png" in result.stderr


@pytest.mark.parametrize("name", ["made/sheet.png", "sheet.jpg", "sheet"])
def test_a_contact_sheet_is_a_png_in_a_folder_that_is_there(
    run: Run, collection: Path, photos: Path, tmp_path: Path, name: str
) -> None:
    args = ["search", photos / "0000.jpg", "--contact-sheet", tmp_path / name]
    result = run(*args, "--data-dir", collection)
    assert result.exit_code == Exit.USAGE
    assert "--contact-sheet" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_search_with_what_is_no_image_fails_with_the_reason(
    run: Run, collection: Path, tmp_path: Path
) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not a picture")
    result = run("search", text, "--data-dir", collection)
    assert result.exit_code == Exit.FAILED
    assert "not an image" in result.stderr


def test_an_empty_collection_says_so(run: Run, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    run("ingest", tmp_path / "data", "--data-dir", tmp_path / "data")  # a folder without images
    result = run("search", photos / "0000.jpg", "--data-dir", tmp_path / "data")
    assert result.exit_code == Exit.DONE
    assert "the collection is empty" in result.stdout


def test_jobs_are_listed_and_shown_with_their_items(run: Run, collection: Path) -> None:
    (listed,) = objects(run("jobs", "--data-dir", collection, "--json"))
    shown = run(
        "jobs", "show", listed["job"]["id"], "--items", "indexed", "--data-dir", collection
    )
    assert "6 submitted = 6 indexed" in shown.stdout
    assert shown.stdout.count("  indexed: ") == 6
    options = ["--items", "rejected", "--data-dir", collection, "--json"]
    (told,) = objects(run("jobs", "show", listed["job"]["id"], *options))
    assert told == {**listed, "items": []}


def test_a_name_that_would_command_the_terminal_is_escaped(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "a\x1b[31m\nb é 日本"
    folder.mkdir()
    bad = folder / "bad\x1b]0;x\x07\u202e.jpg"
    bad.write_bytes(b"not a picture")
    shutil.copy(photos / "0000.jpg", folder / "good\n.jpg")
    data = ["--data-dir", tmp_path / "data"]
    told = [
        run("ingest", folder, *data),
        run("jobs", *data),
        run("images", *data),
        run("search", folder / "good\n.jpg", *data),
        run("search", folder / "none.jpg", *data),
        run("model", "extract", *folder.iterdir()),
    ]
    for result in told:
        text = result.stdout + result.stderr
        assert r"a\x1b[31m\nb é 日本" in text
        assert set("\x1b\x07\u202e").isdisjoint(text)
    assert r"bad\x1b]0;x\x07\u202e.jpg" in told[0].stdout
    (listed,) = objects(run("jobs", *data, "--json"))
    assert listed["job"]["label"] == str(folder)


def test_bytes_of_a_name_that_are_no_text_can_be_printed() -> None:
    assert shown("caf\udce9 \u00a0.jpg") == "caf\\udce9 \u00a0.jpg"


def test_a_job_that_is_over_is_not_changed_by_cancelling(run: Run, collection: Path) -> None:
    (listed,) = objects(run("jobs", "list", "--data-dir", collection, "--json"))
    cancelled = run("jobs", "cancel", listed["job"]["id"], "--data-dir", collection, "--json")
    assert "Nothing was cancelled" in cancelled.stderr
    (told,) = objects(cancelled)
    assert told == listed


def test_images_are_listed_shown_and_deleted(run: Run, photos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run("ingest", photos, "--data-dir", data)
    listed = objects(run("images", "--data-dir", data, "--json"))
    assert len(listed) == 6
    assert {"row", "origin"}.isdisjoint(listed[0])
    image_id = listed[0]["id"]
    assert objects(run("images", "show", image_id, "--data-dir", data, "--json")) == [listed[0]]
    assert run("images", "delete", image_id, "--data-dir", data).exit_code == Exit.DONE
    assert len(objects(run("images", "list", "--data-dir", data, "--json"))) == 5


def test_store_stats_and_check_look_at_every_shard(run: Run, photos: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    run("ingest", photos, "--data-dir", data, env={"LOOKALIKE_SHARDS": "2"})
    stats = objects(run("store", "stats", "--data-dir", data, "--json"))
    assert len(stats) == 2
    assert sum(shard["images"] for shard in stats) == 6
    checked = run("store", "check", "--data-dir", data, "--json")
    assert checked.exit_code == Exit.DONE
    assert [shard["ok"] for shard in objects(checked)] == [True, True]


def test_a_damaged_store_is_told_of(run: Run, collection: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(collection, data)
    (file,) = data.glob("shards/*/data.mdb")
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    result = run("store", "check", "--data-dir", data)
    assert result.exit_code in (Exit.FAILED, Exit.UNAVAILABLE)
    assert str(file.parent) in result.stdout + result.stderr


@pytest.mark.parametrize(
    "command", ["store stats", "store check", "search 0", "jobs list", "images show 0"]
)
def test_a_look_at_no_collection_begins_none(run: Run, tmp_path: Path, command: str) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        result = run(*command.split(), "--data-dir", folder)
        assert result.exit_code == Exit.NOT_FOUND
        assert f"There is no collection in {folder}" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_bundles_are_listed_and_described(run: Run) -> None:
    listed = {one["name"]: one for one in objects(run("model", "list", "--json"))}
    assert set(listed) >= {"lite0-128", "lite0-20", "lite2-128"}
    assert listed["lite0-128"]["used"]
    (info,) = objects(run("model", "info", "--json"))
    assert (info["bits"], info["dims"]) == (128, 1280)
    assert info["id"].startswith("lite0-128@")


def test_extract_prints_codes_and_writes_features(run: Run, photos: Path, tmp_path: Path) -> None:
    output, bad = tmp_path / "features.npz", tmp_path / "bad.jpg"
    bad.write_bytes(b"")
    paths = [photos / "0000.jpg", bad, photos / "0001.jpg"]
    result = run("model", "extract", *paths, "--output", output, "--bits", "--json")
    assert result.exit_code == Exit.FAILED
    refused, first, second = sorted(objects(result), key=lambda told: told["path"] != str(bad))
    assert refused["error"]["code"] == "empty"
    with np.load(output) as arrays:
        assert arrays["features"].shape == (2, 1280)
        assert arrays["features"].dtype == np.float32
        assert list(arrays["paths"]) == [first["path"], second["path"]]
        bits = np.unpackbits(arrays["codes"], axis=1)
    assert ["".join(map(str, row)) for row in bits] == [first["code"], second["code"]]


def test_extract_agrees_with_what_is_stored(run: Run, collection: Path, photos: Path) -> None:
    (told,) = objects(run("model", "extract", photos / "0004.jpg", "--json"))
    options = ["-k", 1, "--data-dir", collection, "--json"]
    (found,) = objects(run("search", photos / "0004.jpg", *options))
    assert told["id"] == found["hits"][0]["id"]
    assert len(bytes.fromhex(told["code"])) == 16


def test_the_demo_ends_with_a_contact_sheet_and_takes_nothing_in_twice(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    args = ["demo", "--images", photos, "--demo-dir", tmp_path / "demo", "--no-serve", "--json"]
    first, again = run(*args), run(*args)
    assert (first.exit_code, again.exit_code) == (Exit.DONE, Exit.DONE), first.stderr
    (told,), (retold,) = objects(first), objects(again)
    assert told["ingest"]["indexed"] == 6
    assert retold["ingest"] is None
    assert told["images"] == retold["images"] == 6
    assert {"model bundle", "ingest", "search", "contact sheet"} <= told["timings_s"].keys()
    assert "6 already taken in" in again.stderr
    assert Image.open(io.BytesIO(Path(told["contact_sheet"]).read_bytes())).format == "PNG"


def test_the_demo_ignores_the_users_broker_and_collection(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    env = {
        "LOOKALIKE_BROKER_URL": "amqp://127.0.0.1:1//",
        "LOOKALIKE_DATA_DIR": str(tmp_path / "mine"),
    }
    args = ["demo", "--images", photos, "--demo-dir", tmp_path / "demo", "--no-serve"]
    assert run(*args, env=env).exit_code == Exit.DONE
    assert not (tmp_path / "mine").exists()


def test_the_demo_has_nothing_to_show_of_an_empty_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    args = ["demo", "--images", tmp_path / "empty", "--demo-dir", tmp_path / "demo"]
    result = run(*args)
    assert result.exit_code == Exit.FAILED
    assert "holds no images" in result.stderr
