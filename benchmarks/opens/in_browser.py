"""Answers with transformers.js in headless Chromium, alone: python in_browser.py FOLDER OUTPUT, cases as JSON on stdin.

FOLDER holds the exported folders and, in tools, the library; a server on loopback gives both to the browser, which may
go nowhere else. Nothing says which file to take: transformers.js chooses, and runs it by WebAssembly.
"""

import json
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from playwright.sync_api import sync_playwright

FOLDER, OUTPUT = map(Path, sys.argv[1:])
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PACKAGES = "/tools/node_modules"
ANSWER = """
async ([cases, packages]) => {
  const { answers } = await import("/answers.mjs");
  const js = await import(`${packages}/@huggingface/transformers/dist/transformers.min.js`);
  Object.assign(js.env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: "/" });
  js.env.backends.onnx.wasm.wasmPaths = `${packages}/onnxruntime-web/dist/`;
  return answers(js, { device: "wasm" }, cases);
}
"""


class Files(SimpleHTTPRequestHandler):
    """Files below FOLDER, and the script beside this one."""

    def translate_path(self, path: str) -> str:
        beside = Path(__file__).with_name("answers.mjs")
        return str(beside) if path == f"/{beside.name}" else super().translate_path(path)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def main() -> None:
    if CHROMIUM is None:
        OUTPUT.write_text(
            json.dumps({case["name"]: {"error": "Chromium is not here"} for case in json.load(sys.stdin)})
        )
        return
    cases = [case | {"folder": str(Path(case["folder"]).relative_to(FOLDER))} for case in json.load(sys.stdin)]
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *given: Files(*given, directory=str(FOLDER)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found: dict[str, object] = {}
    origin = f"http://127.0.0.1:{server.server_port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for case in cases:
            page = browser.new_page()  # of its own, because the library answers nothing after an error
            page.route(lambda url: not url.startswith((origin, "blob:")), lambda route: route.abort())
            page.goto(f"{origin}/answers.mjs")
            found |= page.evaluate(ANSWER, [[case], PACKAGES])
            page.close()
        browser.close()
    OUTPUT.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
