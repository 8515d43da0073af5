"""Links and images of pages, as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.html import Links, is_image_name, links_of

URL = "http://site.example/dir/page.html"


def links(markup: str, url: str = URL) -> Links:
    return links_of(markup.encode(), url)


def pages(markup: str) -> list[str]:
    return links(markup).pages


def images(markup: str) -> list[str]:
    return links(markup).images


@pytest.mark.parametrize(
    ("href", "absolute"),
    [
        ("next.html", "http://site.example/dir/next.html"),
        ("/top", "http://site.example/top"),
        ("../up", "http://site.example/up"),
        ("//other.example/x", "http://other.example/x"),
        ("HTTPS://Other.example/x", "https://Other.example/x"),
        ("?page=2", "http://site.example/dir/page.html?page=2"),
        (" spaced.html\n", "http://site.example/dir/spaced.html"),
        ("a#part", "http://site.example/dir/a"),
        ("a?b=1&amp;c=2", "http://site.example/dir/a?b=1&c=2"),
    ],
)
def test_links_are_made_absolute(href: str, absolute: str) -> None:
    assert pages(f'<a href="{href}">x</a>') == [absolute]
    assert images(f'<img src="{href}">') == [absolute]


@pytest.mark.parametrize(
    "href",
    [
        "mailto:a@b.example",
        "javascript:void(0)",
        "data:image/png;base64,AA",
        "tel:1",
        "http://[",
        "",
        "#",
    ],
)
def test_what_leads_nowhere_is_passed_over(href: str) -> None:
    assert links(f'<a href="{href}">x</a><img src="{href}">') == Links([], [])


def test_every_address_comes_once_in_page_order() -> None:
    markup = '<a href="b"></a><a href="a"></a><a href="b#x"></a><a href="a#y"></a>'
    assert [url.rpartition("/")[2] for url in pages(markup)] == ["b", "a"]


def test_links_to_image_files_are_images() -> None:
    found = links('<a href="photo.JPG?size=large">x</a><a href="page.php?file=a.jpg">y</a>')
    assert found.images == ["http://site.example/dir/photo.JPG?size=large"]
    assert found.pages == ["http://site.example/dir/page.php?file=a.jpg"]


def test_the_preview_image_is_found() -> None:
    markup = '<meta property="og:image" content="http://cdn.example/a.webp">'
    assert images(markup) == ["http://cdn.example/a.webp"]


@pytest.mark.parametrize(
    ("srcset", "largest"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg 1x, b.jpg 2x", "b.jpg"),
        ("b.jpg 2x,a.jpg", "b.jpg"),
        ("a.jpg 640w, b.jpg 1280w, c.jpg 320w", "b.jpg"),
        ("a.jpg 1.5x,\n\t b.jpg 1.25x ,", "a.jpg"),
        ("w_400,h_300/a.jpg 400w, w_800,h_600/b.jpg 800w", "w_800,h_600/b.jpg"),
        ("a.jpg, b.jpg 0.5x", "a.jpg"),
        ("a.jpg nonsense, b.jpg 3x", "b.jpg"),
    ],
)
def test_the_largest_of_a_srcset_is_taken(srcset: str, largest: str) -> None:
    expected = [f"http://site.example/dir/{largest}"]
    assert images(f'<img srcset="{srcset}">') == expected
    assert images(f'<picture><source srcset="{srcset}"></picture>') == expected


@pytest.mark.parametrize("srcset", ["", " , ,", "data:image/png;base64,AA 1x"])
def test_a_srcset_without_an_address_gives_nothing(srcset: str) -> None:
    assert images(f'<img srcset="{srcset}">') == []


def test_a_base_moves_relative_links() -> None:
    markup = '<base href="/other/"><a href="a">x</a><img src="b.png">'
    assert links(markup) == Links(
        ["http://site.example/other/a"], ["http://site.example/other/b.png"]
    )


@pytest.mark.parametrize("base", ["http://[", "", "mailto:x"])
def test_a_base_that_is_no_address_does_no_harm(base: str) -> None:
    found = links(f'<base href="{base}"><a href="http://site.example/a">x</a>')
    assert found.pages == ["http://site.example/a"]


@pytest.mark.parametrize(
    "markup",
    [
        '<p><a href="a">x<div></a></p><td><a href=b>',
        "<a href='a'><a href='b'>",
        '\ufeff<!DOCTYPE html><html><a href="a"></html><a href="b">',
        '<?xml version="1.0" encoding="utf-8"?><html><a href="a"/><a href="b"/></html>',
        '<!-- <a href="no"> --><a href="a"></a><script>"<a href=no>"</script><a href="b">',
    ],
)
def test_damaged_markup_still_shows_its_links(markup: str) -> None:
    assert [url.rpartition("/")[2] for url in pages(markup)] == ["a", "b"]


@pytest.mark.parametrize("document", [b"", b"  \n", b"\0\0\0", b"<!-- only -->", b"\xff\xfe\xfd"])
def test_a_page_of_nothing_has_no_links(document: bytes) -> None:
    assert links_of(document, URL) == Links([], [])


def test_a_declared_encoding_is_used() -> None:
    markup = '<meta charset="iso-8859-1"><a href="caf\u00e9">x</a>'
    assert links_of(markup.encode("latin1"), URL).pages == ["http://site.example/dir/caf\u00e9"]


def test_a_deep_page_is_read() -> None:
    document = b"<div>" * 100_000 + b'<a href="a">'
    assert len(links_of(document, URL).pages) <= 1


PIECES = [
    *("<a href=", "<img src=", "<base href=", "<img srcset=", "<meta property=og:image content="),
    *(
        "'",
        '"',
        ">",
        "<",
        "&#0;",
        "&#xd800;",
        "\0",
        "\ud7ff",
        "http://[",
        "//",
        "a.jpg",
        ",",
        " 2x",
    ),
    *("<!--", "]]>", "<?xml encoding='utf-7'?>", "<svg>", "</a>", "\n", "é", "https://h:99999/"),
]


@given(st.lists(st.sampled_from(PIECES), max_size=30))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_page_is_too_damaged_to_be_read(pieces: list[str]) -> None:
    found = links("".join(pieces))
    for url in found.pages + found.images:
        assert url.startswith(("http://", "https://"))


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_noise_is_a_page_too(noise: bytes) -> None:
    links_of(noise, URL)


def test_image_names_are_known_by_their_ending() -> None:
    for name in ("a.jpg", "A.JPEG", "b.x.Png", "c.heic", "/dir/d.svg"):
        assert is_image_name(name)
    for name in ("a", "jpg", ".jpg", "a.jpg.txt", "a.jpg/", "a.html"):
        assert is_image_name(name) == (name == "a.jpg/")
