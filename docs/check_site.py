"""Check a built site: links and anchors lead somewhere, nothing comes from elsewhere, every picture has its text.

    python docs/check_site.py build/site

Prints what is wrong, one line each, and ends with status 1 if anything is.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Elements whose address a browser fetches by itself, with the attribute that holds it.
FETCHED = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "srcset", "video": "src"}


class Page(HTMLParser):
    """The anchors of a page, its links, what it fetches, and pictures without a text (but thumbnails)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.silent: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in FETCHED and values.get(FETCHED[tag]):
            self.fetched.append(values[FETCHED[tag]].split()[0])
        if tag == "img" and not values.get("alt") and not values["src"].endswith("_thumb.png"):
            self.silent.append(values.get("src", ""))


def faults(root: Path) -> Iterator[str]:
    """What is wrong with a site, a line each."""
    pages = {path.resolve(): Page(path) for path in sorted(root.rglob("*.html"))}
    if not pages:
        yield f"{root}: no page"
    for path, page in pages.items():
        name = path.relative_to(root.resolve())
        yield from (f"{name}: a picture without alt text: {source}" for source in page.silent)
        yield from (f"{name}: fetched from elsewhere: {x}" for x in page.fetched if urlsplit(x).netloc)
        yield from (f"{name}: broken: {x}" for x in [*page.links, *page.fetched] if broken(x, path, pages))


def broken(link: str, path: Path, pages: dict[Path, Page]) -> bool:
    """Whether a link inside the site leads to no file, or to no anchor of a page."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return True
    anchor = unquote(parts.fragment)
    return bool(anchor) and target in pages and anchor not in pages[target].anchors


def main() -> None:
    found = list(faults(Path(sys.argv[1])))
    print("\n".join(found) or "Every link and anchor resolves; nothing is fetched from elsewhere.")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
