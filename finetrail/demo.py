"""Shows an exported model on a page of this machine, to try it: python -m finetrail.demo, or `make try`."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from finetrail import inference, layout, predict, stage, tasks
from finetrail.errors import UserError
from finetrail.tasks.views import View

if TYPE_CHECKING:
    from finetrail.tasks.contract import Demo

HOST = "127.0.0.1"
EXAMPLES = 8
DOCUMENTS = 2000  # of the corpus that retrieval searches: encoding a large corpus takes hours
LINES = 3  # of an input
# The browser loads nothing from other hosts, although Gradio's page refers to some.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; frame-ancestors 'none'"
)
# Gradio (6) breaks highlighted texts inside words, and starts a line at each mark.
STYLE = ".textfield { display: block !important; word-break: normal !important; overflow-wrap: anywhere; }"
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}

# Texts by the names of an input's keys -> a value for each view.
Show = Callable[..., list[Any]]


def main() -> None:
    """Serve the page until Ctrl-C."""
    options = arguments()
    settings = inference.read_settings(options.folder)
    demo = tasks.module(settings.task, "demo")
    show, about = loaded(options.folder, settings, demo, options.documents)
    examples = [list(one.values()) for one in asked(options.folder, demo)]
    launch(page(settings, demo, show, examples, about), options.port)


def loaded(folder: Path, settings: inference.Exported, demo: "Demo", documents: Path | None) -> tuple[Show, str]:
    """Return the function that answers and shows, and a line about the model that answers."""
    runtime = inference.preferred_runtime(folder)
    about = f"{folder}, run by {runtime}"
    if documents is None and tasks.module(settings.task, "serving").documents:
        given, whole = rows(layout.table_file(layout.CORPUS, "documents"), DOCUMENTS)
        if not given:
            raise UserError("there are no documents to search; expected data/corpus/documents.parquet, or --documents")
        answer = inference.load(folder, runtime, documents=given)
        about += f"; searches {len(given):,} of the {whole:,} documents of the corpus"
    else:
        answer = predict.load(folder, runtime, None, documents)
    keys = list(demo.fields(settings.target))

    def show(*texts: str) -> list[Any]:
        asked = dict(zip(keys, texts, strict=True))
        return list(demo.shown(asked, answer([asked])[0], settings.target))

    answer([tasks.module(settings.task, "serving").probe(settings.target)])  # report an error before the page opens
    return show, about


def rows(path: Path, most: int, part: str | None = None) -> tuple[list[dict[str, Any]], int]:
    """Return the first rows of a table of the corpus, or of one part of it, and its size; no rows if it is missing.

    The column of the part is left out.
    """
    if not path.is_file():
        return [], 0
    filters = None if part is None else [(layout.PART, "=", part)]
    table = pq.read_table(path, filters=filters)
    names = [name for name in table.column_names if name != layout.PART]
    return table.select(names).slice(0, most).to_pylist(), len(table)


def asked(folder: Path, demo: "Demo") -> list[dict[str, str]]:
    """Return inputs from the test split if the folder is data/exported or one of its parts."""
    exported, own = layout.EXPORTED.resolve(), folder.resolve()
    if own != exported and exported not in own.parents:
        return []
    part = None if own == exported else own.name
    return [demo.asked(row, folder) for row in rows(layout.table_file(layout.CORPUS, "test"), EXAMPLES, part)[0]]


def page(settings: inference.Exported, demo: "Demo", show: Show, examples: list[list[str]], about: str) -> Any:
    """Return the page as Gradio Blocks; UserError if Gradio is not installed."""
    gradio = installed()
    views: list[View] = demo.views(settings.target)

    def answer(*texts: str) -> list[Any]:
        try:
            return [*show(*texts), gradio.update(value="", visible=False)]
        except UserError as error:
            return [*(None for _ in views), gradio.update(value=str(error), visible=True)]

    with gradio.Blocks(analytics_enabled=False, title=f"{settings.task} · finetrail") as blocks:
        gradio.Markdown(f"# {settings.task}")
        gradio.Textbox(about, label="Model", interactive=False)
        with gradio.Row():
            with gradio.Column():
                titles = demo.fields(settings.target).items()
                inputs = [gradio.Textbox(label=title, lines=LINES, elem_id=f"input-{key}") for key, title in titles]
                button = gradio.Button("Try", variant="primary", elem_id="try")
            with gradio.Column():
                problem = gradio.Textbox(label="Problem", visible=False, interactive=False, elem_id="problem")
                outputs = [component(gradio, view, f"output-{place}") for place, view in enumerate(views)]
        outputs.append(problem)
        options: dict[str, Any] = {"fn": answer, "inputs": inputs, "outputs": outputs}
        button.click(**options, api_visibility="private")
        if examples:
            options |= {"label": "Examples from the test split", "elem_id": "examples"}
            gradio.Examples(examples, **options, run_on_click=True, cache_examples=False)
    return blocks


def component(gradio: ModuleType, view: View, name: str) -> Any:
    """Return the component of a view; all components show text verbatim, never as HTML."""
    options: dict[str, Any] = {"label": view.title, "elem_id": name}
    if view.kind == "highlighted":
        return gradio.HighlightedText(**options, show_legend=True)
    if view.kind == "probabilities":
        return gradio.Label(**options, show_heading=False)
    if view.kind == "table":
        return gradio.Dataframe(**options, headers=list(view.columns), datatype="str", wrap=True, interactive=False)
    return gradio.Textbox(**options, interactive=False)


def installed() -> ModuleType:
    """Import Gradio without its reports to its makers; UserError if it is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # also read when it is imported
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio
    except ImportError as error:
        raise UserError(f"{error.name} is not installed; expected the extra try: pip install -e '.[try]'") from None
    return gradio


def launch(blocks: Any, port: int | None, wait: bool = True) -> str:
    """Serve the page on the loopback interface; return its address, at once or when Ctrl-C ends it."""
    gradio = installed()
    from starlette.middleware import Middleware

    try:
        _, address, _ = blocks.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            allowed_paths=[],
            theme=gradio.themes.Default(**FONTS),
            css=STYLE,
            app_kwargs={"middleware": [Middleware(Policy)], "docs_url": None, "redoc_url": None},
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError:
        raise UserError(f"--port {port}: in use; expected one that is free") from None
    stage.log(f"try: {address}")
    if wait:
        blocks.block_thread()
    return str(address)


class Policy:
    """Middleware that forbids browsers to load anything from other hosts (Content-Security-Policy)."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, and its answer back with the header."""

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, with_policy)


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m finetrail.demo", description="A page to try an exported model.")
    parser.add_argument("folder", type=Path, nargs="?", default=layout.EXPORTED, help="output of the export stage")
    parser.add_argument("--port", type=int, help="without it: the first that is free from 7860 on")
    parser.add_argument("--documents", type=Path, help="for retrieval: what to search; JSON Lines, .csv or .tsv")
    return parser.parse_args()


if __name__ == "__main__":
    stage.run(main)
