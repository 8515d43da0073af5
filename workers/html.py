"""Links and images of an HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urljoin, urlsplit

from lxml import etree, html

# Some of these cannot be decoded; their files are listed all the same, and rejected with a reason.
IMAGE_SUFFIXES = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".avif", ".ico"),
        *(".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
        *(".heic", ".heif", ".jxl", ".svg"),
    )
)
_SRCSET_CHARS = 20_000
_BETWEEN = ", \t\n\r\f"


@dataclass(frozen=True)
class Links:
    """Absolute ``http`` and ``https`` addresses, without fragments, each once, in page order."""

    pages: list[str]
    images: list[str]


def links_of(document: bytes, url: str) -> Links:
    """Return where a page leads and what images it shows.

    Args:
        document: HTML, in whatever encoding it declares; damaged is fine.
        url: Address of the page, for relative links.
    """
    try:
        root = html.document_fromstring(document) if document.strip() else None
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        root = None
    if root is None:
        return Links([], [])
    base = _joined(url, root.xpath("string(//base/@href)")) or url
    hrefs = root.xpath("//a/@href")
    pictures = root.xpath("//img/@src | //meta[@property='og:image']/@content")
    pictures += [_largest(srcset) for srcset in root.xpath("//img/@srcset | //source/@srcset")]
    pictures += [href for href in hrefs if is_image_name(path_in(href))]
    pages = [href for href in hrefs if not is_image_name(path_in(href))]
    return Links(_absolute(pages, base), _absolute(pictures, base))


def is_image_name(name: str) -> bool:
    """Return whether a file name ends like an image's, in small letters or capitals."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def path_in(url: str) -> str:
    """Return the path of a URL, or nothing for one that is none."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _largest(srcset: str) -> str:
    """Return the candidate of a ``srcset`` with the largest width or density."""
    candidates = list(_candidates(srcset[:_SRCSET_CHARS]))
    return max(candidates, key=lambda candidate: _size_of(candidate[1]))[0] if candidates else ""


def _candidates(srcset: str) -> Iterator[tuple[str, str]]:
    """Yield addresses and descriptors; a comma inside an address is part of it."""
    rest = srcset.lstrip(_BETWEEN)
    while rest:
        address, *more = rest.split(None, 1)
        rest = more[0] if more else ""
        descriptor = ""
        if not address.endswith(","):
            descriptor, _, rest = rest.partition(",")
        yield address.rstrip(","), descriptor.strip()
        rest = rest.lstrip(_BETWEEN)


def _size_of(descriptor: str) -> float:
    try:
        return float(descriptor[:-1]) if descriptor else 1.0
    except ValueError:
        return 1.0


def _absolute(links: list[str], base: str) -> list[str]:
    found: dict[str, None] = {}
    for link in links:
        absolute = _joined(base, link)
        if absolute.startswith(("http://", "https://")):
            found[absolute] = None
    return list(found)


def _joined(base: str, link: str) -> str:
    """Return a link in full, without its fragment; nothing if it is no address."""
    if not link.strip("# \t\r\n"):
        return ""  # the page itself, which is no image either
    try:
        parts = urlsplit(urljoin(base, link.strip()))
        return parts._replace(fragment="").geturl()  # with the scheme in small letters
    except ValueError:
        return ""
