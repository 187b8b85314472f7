"""Build the documentation with the API reference into FOLDER: python docs/build_site.py FOLDER. Dead links are errors.

The pages have the links that work on a code host; in the copies that the site is built from, links to pages are those of the
site, and links to other files of the repository are text.
"""

from __future__ import annotations

import argparse
import logging
import re
import shutil
import tempfile
from pathlib import Path

import build_api
from mkdocs.commands.build import build
from mkdocs.config import load_config

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
# pages outside docs/, and the page whose name means the folder on a code host
NAMES = {
    ROOT / "README.md": "index.md",
    ROOT / "CONTRIBUTING.md": "contributing.md",
    ROOT / "CHANGELOG.md": "changelog.md",
    DOCS / "README.md": "contents.md",
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def stage(folder: Path) -> None:
    """Copy all pages into one folder, with links between them that are relative to it."""
    names = NAMES | {page: page.name for page in DOCS.glob("*.md") if page not in NAMES}
    for page, name in names.items():
        text = LINK.sub(lambda match, page=page: _link(match, page, names), page.read_text(encoding="utf-8"))
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copytree(DOCS / "images", folder / "images")


def _link(match: re.Match[str], page: Path, names: dict[Path, str]) -> str:
    """Return a link of a page as the site has it."""
    text, path, anchor = match.groups(default="")
    if "://" in path:
        return match[0]
    target = (page.parent / path).resolve()
    if target in names:
        return f"[{text}]({names[target]}{anchor})"
    if DOCS / "images" in target.parents:
        return f"[{text}](images/{target.name})"
    return text if target.exists() and target.is_relative_to(ROOT) else match[0]


def main(folder: str) -> None:
    """Build the site. Raise SystemExit if MkDocs warns, e.g. of a link to an anchor that no page has."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")  # says which link is dead
    with tempfile.TemporaryDirectory() as temporary:
        pages = Path(temporary)
        stage(pages)
        build_api.main(str(pages / "api"))
        build(
            load_config(str(DOCS / "mkdocs.yml"), docs_dir=temporary, site_dir=str(Path(folder).resolve()), strict=True)
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the documentation with the API reference.")
    parser.add_argument("folder", help="folder to write")
    main(parser.parse_args().folder)
