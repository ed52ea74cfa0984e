"""Follows every relative link and anchor of the pages in a folder; 1 where one is dead."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """The links of a page, and the anchors in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what leads away from here, and what leads here."""
        for name, value in attrs:
            if value and name in ("href", "src"):
                self.links.append(value)
            elif value and name in ("id", "name"):
                self.anchors.add(value)


def dead(page: Path, link: str, pages: dict[Path, Page]) -> bool:
    """True when *link* leads nowhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    goal = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not goal.exists():
        return True
    is_page = goal in pages and parts.fragment
    return bool(is_page) and unquote(parts.fragment) not in pages[goal].anchors


def main(folder: Path) -> int:
    """Print the dead links; how the process is to end."""
    paths = [path for path in sorted(folder.resolve().rglob("*.html")) if path.name != "404.html"]
    pages = {path: Page(path) for path in paths}
    found = [
        f"{path.relative_to(folder.resolve())}: {link}"
        for path, page in pages.items()
        for link in page.links
        if dead(path, link, pages)
    ]
    print("\n".join(found) or f"{sum(len(page.links) for page in pages.values())} links are good")  # noqa: T201
    return 1 if found or not pages else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
