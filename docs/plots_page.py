"""Writes .dvc/plots/page.html, the page of `dvc plots`, with the scripts in it that DVC's own page loads from a CDN.

It needs npm and a network, once for each version of DVC that names other scripts: python docs/plots_page.py
"""

import json
import re
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc_render.vega import VegaRenderer

PAGE = Path(".dvc/plots/page.html")
# dvc-render replaces {scripts} by its own tags for them; this page has none.
TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{refresh_tag}
<title>DVC plots</title>
<!--
Made by docs/plots_page.py. The scripts are of the packages named in them, under this license:

LICENSE
-->
SCRIPTS
<style>
body { font-family: sans-serif; }
img { width: 660px; max-width: 100%; }
table { border-spacing: 15px; }
</style>
</head>
<body>
{plot_divs}
</body>
</html>
"""


def main() -> None:
    """Fetch each package and write the page."""
    packages = re.findall(r"npm/([\w-]+@[\d.]+)", VegaRenderer.SCRIPTS)
    fetched = [fetch(package) for package in packages]
    page = TEMPLATE.replace("LICENSE", fetched[0][1]).replace("SCRIPTS", "\n".join(script for script, _ in fetched))
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page, encoding="utf-8")


def fetch(package: str) -> tuple[str, str]:
    """Return the script of an npm package as an element, and the text of its license."""
    with TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        [archive] = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        files = Path(folder) / "package"
        script = json.loads((files / "package.json").read_text())["jsdelivr"]
        text = (files / script).read_text(encoding="utf-8")
        text = re.sub(r"(?m)^//# sourceMappingURL=.*\n?", "", text).strip()
        return f"<script>/* {package}, {script} */\n{text}\n</script>", (files / "LICENSE").read_text().strip()


if __name__ == "__main__":
    main()
