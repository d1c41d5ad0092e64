"""Builds the site in site/ from docs/*.md, ARCHITECTURE.md and SECURITY.md; its pages load nothing from another host.

python docs/site.py    (`make site` calls it, with the packages of requirements-docs.lock)
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = {path: path.name for path in sorted(ROOT.glob("docs/*.md"))} | {
    ROOT / "README.md": "index.md",  # which says the same in more words
    ROOT / "ARCHITECTURE.md": "architecture.md",
    ROOT / "SECURITY.md": "security.md",
}
LINK = re.compile(r"\[([^][]+)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")
FOREIGN = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//|@import|url\(\"?(?:https?:)?//"
)


def page(path: Path) -> str:
    """Return the text of a document with the links of the site; a link to a file that is no page becomes text."""

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found.groups()
        file = (path.parent / target).resolve()
        if not file.exists():
            raise SystemExit(f"error: {path.relative_to(ROOT)}: no file {target}; expected a path from its folder")
        if file.suffix == ".png":
            return found[0]
        return f"[{text}]({PAGES[file]}{anchor or ''})" if file in PAGES else text

    return LINK.sub(link, path.read_text(encoding="utf-8"))


def assemble(folder: Path) -> None:
    """Write all pages and pictures into an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path, name in PAGES.items():
        if path.name != "README.md":
            (folder / name).write_text(page(path), encoding="utf-8")
    for path in ROOT.glob("docs/*.png"):
        shutil.copy(path, folder)


def foreign(site: Path) -> list[str]:
    """Return what the pages and style sheets of a built site would load from other hosts."""
    files = [path for path in sorted(site.rglob("*")) if path.suffix in (".html", ".css")]
    return [f"{path.relative_to(site)}: {found[0]}" for path in files for found in FOREIGN.finditer(path.read_text())]


def main() -> None:
    """Build, and refuse warnings and whatever is loaded from elsewhere."""
    assemble(ROOT / ".scratch/site")
    shutil.rmtree(ROOT / "site", ignore_errors=True)
    build = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    if subprocess.run(build, cwd=ROOT).returncode:
        raise SystemExit("error: the site has warnings, above")
    if found := foreign(ROOT / "site"):
        raise SystemExit(f"error: the site loads {found[0]}; expected nothing from another host")
    print("Look at: site/index.html")


if __name__ == "__main__":
    main()
