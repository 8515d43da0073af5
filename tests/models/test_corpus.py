import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import ImageError
from models.labelled.corpus import read_corpus, read_photos
from models.labelled.errors import CorpusError
from models.labelled.pictures import read_picture
from models.labelled.readable import readable
from models.labelled.skipped import Skipped
from models.labelled.split import hold_out


def write_images(folder: Path, names: list[str]) -> Path:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (24, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_class_is_a_folder_however_deep_its_images_lie(tmp_path: Path) -> None:
    root = write_images(tmp_path, ["b/images/2.jpg", "a/1.JPEG", "a/3.png", "b/x/y/1.webp"])
    corpus = read_corpus(root)
    names = [str(path.relative_to(root)) for path in corpus.paths]
    assert names == ["a/1.JPEG", "a/3.png", "b/images/2.jpg", "b/x/y/1.webp"]
    assert corpus.classes == ("a", "b")
    assert corpus.labels.tolist() == [0, 0, 1, 1]
    assert corpus.labels.dtype == np.int64


def test_what_is_no_image_and_what_is_hidden_does_not_count(tmp_path: Path) -> None:
    write_images(tmp_path, ["a/1.jpg", "a/.2.jpg", "b/1.jpg", ".git/1.jpg", "b/.old/1.jpg"])
    for name in ("a/Thumbs.db", "a/notes.txt", "b/drawing.eps", "readme.md"):
        (tmp_path / name).write_text("no image")
    corpus = read_corpus(tmp_path)
    assert corpus.classes == ("a", "b")
    assert [path.name for path in corpus.paths] == ["1.jpg", "1.jpg"]


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    elsewhere = write_images(tmp_path / "elsewhere", ["a/1.jpg", "b/1.jpg"])
    (tmp_path / "linked").mkdir()
    for name in ("a", "b"):
        (tmp_path / "linked" / name).symlink_to(elsewhere / name)
    assert len(read_corpus(tmp_path / "linked")) == 2


def test_a_csv_says_the_same_as_the_folders_it_lists(tmp_path: Path) -> None:
    root = write_images(tmp_path / "images", ["a/1.jpg", "b/2.jpg", "b/3.jpg"])
    absolute = root / "b" / "3.jpg"
    text = f"\ufefflabel,path,size\na,images/a/1.jpg,3\nb, images/b/2.jpg ,4\nb,{absolute},5\n"
    listed, folders = read_corpus(write_csv(tmp_path / "list.csv", text)), read_corpus(root)
    assert listed.paths == folders.paths
    assert listed.classes == folders.classes
    assert np.array_equal(listed.labels, folders.labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,label\n1.jpg,a\n", "has no column path; its first line must name"),
        ("", "has no column label, path"),
        ("path,label\n1.jpg,a\n2.jpg,\n", r"line 3 of .* lacks a path or a label; add it"),
        ("path,label\n1.jpg\n", "line 2 of"),
        ("path,label\n", "has no image; at least two classes"),
        ("path,label\n1.jpg,a\n2.jpg,a\n", "only the class 'a'"),
    ],
)
def test_a_csv_that_says_too_little_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read_corpus(write_csv(tmp_path / "list.csv", text))


def test_a_csv_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("path,label\n1.jpg,Bär\n".encode("latin-1"))
    with pytest.raises(CorpusError, match="save it as CSV in UTF-8"):
        read_corpus(tmp_path / "list.csv")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"there is no folder or CSV .*nowhere; give a folder"):
        read_corpus(tmp_path / "nowhere")


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    root = write_images(tmp_path, ["a/1.jpg", "b/1.jpg"])
    (root / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"the class folder .*empty has no image; delete it"):
        read_corpus(root)


@pytest.mark.parametrize("names", [["a/1.jpg"], ["1.jpg", "2.jpg"]])
def test_fewer_than_two_class_folders_are_refused(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(CorpusError, match="at least two classes are needed"):
        read_corpus(write_images(tmp_path, names))


def test_the_parts_of_a_data_set_are_not_taken_for_classes(tmp_path: Path) -> None:
    root = write_images(tmp_path, ["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg"])
    with pytest.raises(CorpusError, match=r"holds the parts test, train, .* such as .*train"):
        read_corpus(root)


def test_photos_in_one_folder_are_named_for_their_class(tmp_path: Path) -> None:
    flat = write_images(tmp_path / "flat", ["n02_cat.jpg", "n01_big_dog.jpg"])
    folders = write_images(tmp_path / "folders", ["x/1.jpg", "y/1.jpg"])
    assert read_photos(flat).classes == ("n01", "n02")
    assert [path.name for path in read_photos(flat).paths] == ["n01_big_dog.jpg", "n02_cat.jpg"]
    assert read_photos(folders).classes == ("x", "y")


def test_taking_rows_keeps_the_classes(tmp_path: Path) -> None:
    corpus = read_corpus(write_images(tmp_path, ["a/1.jpg", "b/1.jpg", "c/1.jpg"]))
    taken = corpus.take([2, 0])
    assert taken.classes == corpus.classes
    assert [corpus.classes[label] for label in taken.labels] == ["c", "a"]
    assert taken.paths == (corpus.paths[2], corpus.paths[0])


def test_a_picture_is_read_upright_and_a_large_one_may_be_reduced(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (800, 400), "red").save(tmp_path / "1.jpg", exif=exif)
    assert read_picture(tmp_path / "1.jpg").size == (400, 800)
    assert read_picture(tmp_path / "1.jpg", min_side_px=50).size == (100, 200)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.jpg", "there is no such file"),
        ("text.jpg", "not a picture of a known format"),
        ("cut.jpg", "the file may be cut"),
        ("large.png", "1001 x 1000 pixels are too many"),
        ("pipe.jpg", "there is no such file"),
    ],
)
def test_a_picture_that_cannot_be_read_says_why(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "text.jpg").write_text("hello")
    Image.effect_noise((90, 90), 50).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-200])
    Image.new("1", (1001, 1000)).save(tmp_path / "large.png")
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match=message):
        read_picture(tmp_path / name, max_pixels=1_000_000)


def test_holding_out_takes_a_share_of_every_class_and_no_more_than_wanted() -> None:
    labels = np.repeat([0, 1, 2, 3], [100, 50, 3, 1])
    rows, held = hold_out(labels, share=0.1, most=1000, seed=0)
    assert np.array_equal(np.sort([*rows, *held]), np.arange(len(labels)))
    assert np.bincount(labels[held], minlength=4).tolist() == [10, 5, 1, 0]
    _, fewer = hold_out(labels, share=0.5, most=20, seed=0)
    assert len(fewer) == pytest.approx(20, abs=2)
    _, same = hold_out(labels, share=0.1, most=1000, seed=0)
    assert np.array_equal(held, same)
    with pytest.raises(CorpusError, match="no class has two images"):
        hold_out(np.array([0, 1]), share=0.5, most=9, seed=0)


def test_images_are_checked_before_they_are_needed(tmp_path: Path) -> None:
    corpus = read_corpus(write_images(tmp_path, ["a/1.jpg", "b/1.jpg", "b/2.jpg"]))
    corpus.paths[1].write_text("no image")
    left, skipped = readable(corpus, min_side_px=8)
    assert left.paths == (corpus.paths[0], corpus.paths[2])
    assert skipped == (
        Skipped(corpus.paths[1], "not a picture of a known format; delete or replace it"),
    )
    with pytest.raises(CorpusError, match=r"no image of .* can be read; the first: .*1.jpg: not"):
        readable(corpus.take([1, 1]), min_side_px=8)
