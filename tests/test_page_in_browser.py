"""The page in Chromium: what it answers to pointer and keyboard, and that it fits, prints and loads nothing."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, sync_playwright

from finetrail.comparison import page as several
from finetrail.comparison.pairs import Change, Compared
from finetrail.comparison.runs import Run, System
from finetrail.evaluation.significance import Difference, Settings
from finetrail.reporting import page
from tests.test_report import RELIABILITY, SLICES, make_results

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with all that it may have, and an error for a cell with few."""
    results = make_results()
    results.tables.update(reliability=RELIABILITY, slices=SLICES)
    results.errors[40] |= {"reference": "B-movie", "prediction": "I-person", "id": "the-one", "right": "a " * 400}
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page.render("token_classification", "wnut16", results), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of three systems, with long texts that changed."""
    history = make_results().history
    scores = {"f1": Difference(0.4, 0.45, 0.05, 0.01, 0.09, 0.02, 0.06)}
    text = "a sentence of some length with a wörd-that-is-rather-long-and-goes-on-and-on " * 3
    changes = [Change(f"t{n}", float(n > 29), float(n < 30), text, "PER: Ada", "LOC: Ada", "") for n in range(60)]
    found = [Compared("main", name, "f1", [], 479, [], scores, [], changes) for name in ("exp-one", "exp-two")]
    systems = [System(name, [Run(name, None, record(name))]) for name in ("main", "exp-one", "exp-two")]
    curves = {system.name: history for system in systems}
    html = several.render(found, [{"f1": 0.02}] * 2, [[], []], Settings(1000, 0.95, 1), systems, curves)
    path = tmp_path_factory.mktemp("page") / "comparison.html"
    path.write_text(html, encoding="utf-8")
    return path


def record(name: str) -> dict[str, Any]:
    """Content of a metrics.json."""
    scores = {"f1": 0.4, "f1_low": 0.35, "f1_high": 0.45}
    export = {"onnx_fp32": {"f1": 0.4, "mib": 86.2}}
    return {"task": "token_classification", "recipe": name, "seed": 42, "test": scores, "export": export}


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Open]:
    """Open the page in a window of its own; anything that it logs, raises or asks of a network fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def open_page(width: int = 1280, file: Path = file, **options: Any) -> Page:
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        shown = contexts[-1].new_page()
        shown.on("console", lambda message: complaints.append(message.text))
        shown.on("pageerror", lambda error: complaints.append(str(error)))
        shown.on("request", lambda request: complaints.extend([request.url] * (request.url != file.as_uri())))
        shown.goto(file.as_uri())
        return shown

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints


def rows(table: Locator) -> list[str]:
    """Return the text of each row that is shown."""
    return table.locator("tbody tr:visible").all_inner_texts()


def test_a_table_is_sorted_by_a_click_and_by_the_keyboard(opened: Open) -> None:
    shown = opened()
    table = shown.get_by_role("table", name="test: 10 labels")
    scores = [float(row.split("\t")[2]) for row in rows(table)]
    heading = table.get_by_role("columnheader", name="f1")
    heading.get_by_role("button").click()
    assert [float(row.split("\t")[2]) for row in rows(table)] == sorted(scores, reverse=True) != scores
    assert heading.get_attribute("aria-sort") == "descending"
    heading.get_by_role("button").press("Enter")
    assert [float(row.split("\t")[2]) for row in rows(table)] == sorted(scores)
    table.get_by_role("button", name="label").click()
    assert [row.split("\t")[0] for row in rows(table)][:3] == ["company", "facility", "geo-loc"]
    assert heading.get_attribute("aria-sort") is None


def test_errors_are_searched_and_unfolded(opened: Open) -> None:
    shown = opened()
    table = shown.locator("#errors-table")
    tools = shown.locator(".tools", has=shown.get_by_role("button", name="Show all 100"))
    assert len(rows(table)) == 20
    tools.get_by_label("Search").fill("B-MOVIE the-one")
    assert len(rows(table)) == 1 and "the-one" in rows(table)[0]
    assert shown.get_by_text("1 of 100 rows").is_visible()
    shown.get_by_role("button", name="Clear").click()
    shown.get_by_role("button", name="Show all 100").click()
    assert len(rows(table)) == 100


def test_a_cell_of_the_confusion_matrix_shows_its_errors(opened: Open) -> None:
    shown = opened()
    table = shown.locator("#errors-table")
    shown.get_by_role("link", name=re.compile("^person predicted as O")).click()
    found = rows(table)
    assert len(found) == 9 and all("B-person\tO" in row for row in found)
    assert table.bounding_box() and shown.evaluate("location.hash") == "#errors"
    cell = shown.get_by_role("link", name=re.compile("^movie predicted as person"))
    cell.focus()
    shown.keyboard.press("Enter")
    assert len(rows(table)) == 1 and "the-one" in rows(table)[0]
    assert cell.get_attribute("aria-current") == "true"
    assert shown.locator("[aria-current]").count() == 1
    assert "movie predicted as person" in (shown.locator("output:visible", has_text="1 of 100").text_content() or "")


def told(chart: Locator) -> list[str]:
    """Return the values in a chart's legend: the update's, then one of each line."""
    return chart.locator(".u-value").all_inner_texts()


def test_charts_tell_their_values_to_pointer_and_keyboard(opened: Open) -> None:
    shown = opened()
    chart = shown.get_by_role("group", name=re.compile("^f1;"))
    assert chart.locator(".u-legend").get_attribute("aria-live") == "polite"
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    assert box is not None
    shown.mouse.move(box["x"] + box["width"] - 2, box["y"] + 50)
    assert told(chart) == ["360", "0.39"]
    chart.focus()
    shown.keyboard.press("ArrowLeft")
    assert told(chart) == ["270", "0.4"]
    # The other charts show the same update.
    update, _, validation = told(shown.get_by_role("group", name=re.compile("^loss;")))
    assert (update, validation) == ("270", "0.262")


def test_charts_are_zoomed_by_dragging_keys_and_buttons(opened: Open) -> None:
    shown = opened()
    chart = shown.get_by_role("group", name=re.compile("^loss;"))
    scale = "figure => [figure.plot.scales.x.min, figure.plot.scales.x.max].map(Math.round)"
    assert chart.evaluate(scale) == [10, 360]
    chart.scroll_into_view_if_needed()
    box = chart.locator(".u-over").bounding_box()
    assert box is not None
    shown.mouse.move(box["x"] + box["width"] / 2, box["y"] + 50)
    shown.mouse.down()
    shown.mouse.move(box["x"] + box["width"] - 1, box["y"] + 50, steps=4)
    shown.mouse.up()
    low, high = chart.evaluate(scale)
    assert 180 <= low <= 190 and high >= 355
    chart.get_by_role("button", name="show all").click()
    assert chart.evaluate(scale) == [10, 360]
    chart.focus()
    shown.keyboard.press("+")
    low, high = chart.evaluate(scale)
    assert 160 < high - low < 190
    shown.keyboard.press("0")
    assert chart.evaluate(scale) == [10, 360]


def test_slices_and_marked_words_are_seen(opened: Open) -> None:
    shown = opened()
    assert shown.locator("#errors-table mark").first.inner_text() == "<script>alert('x')</script>"
    flagged = shown.get_by_role("row", name=re.compile("<long>"))
    assert flagged.get_by_role("cell", name="worse").is_visible()
    shown.get_by_role("table", name=re.compile("^f1 in 2 slices")).get_by_role("button", name="score").click()
    assert (
        shown.get_by_role("table", name=re.compile("^f1 in 2 slices"))
        .locator("tbody tr")
        .first.inner_text()
        .startswith("length\t1-8")
    )


def test_several_runs_have_the_same_page(opened: Open, comparison: Path) -> None:
    shown = opened(file=comparison)
    loss = shown.get_by_role("group", name=re.compile("^validation.loss;"))
    loss.focus()
    shown.keyboard.press("ArrowRight")
    assert told(loss) == ["90", "0.31", "0.31", "0.31"]
    table = shown.get_by_role("table", name="better in exp-two")
    shown.locator("summary", has_text="30 examples better").last.click()
    assert len(rows(table)) == 20
    shown.get_by_role("searchbox").and_(shown.locator(":visible")).last.fill("t7")
    assert len(rows(table)) == 1
    assert shown.get_by_role("row", name="recipe main exp-one exp-two").is_visible()
    phone = opened(390, comparison)
    for page_of_width, width in ((shown, 1280), (phone, 390)):
        assert page_of_width.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(opened: Open, width: int) -> None:
    shown = opened(width)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    hidden = "table => table.parentElement.scrollWidth - table.parentElement.clientWidth"
    for table in (shown.locator("#errors-table"), shown.get_by_role("table", name="test: 10 labels")):
        assert table.evaluate(hidden) <= (0 if width > 390 or "errors" in (table.get_attribute("id") or "") else 24)


def test_it_follows_the_readers_dark_mode_and_its_changes(opened: Open) -> None:
    shown = opened(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    stroke = "document.querySelector('[data-chart]').plot.series[1].stroke()"
    assert shown.evaluate(background) == "rgb(18, 22, 28)" and shown.evaluate(stroke) == "#4c83e6"
    shown.emulate_media(color_scheme="light")
    assert shown.evaluate(background) == "rgb(255, 255, 255)" and shown.evaluate(stroke) == "#2463c4"
    assert shown.locator("[data-chart]").count() == shown.locator(".uplot").count()


def test_print_and_no_script_have_drawings_and_whole_tables(opened: Open) -> None:
    printed = opened()
    assert printed.locator("canvas").first.is_visible() and not printed.locator("figure > svg").first.is_visible()
    printed.emulate_media(media="print")
    assert printed.locator("figure > svg").first.is_visible()
    for gone in ("canvas", ".tools", ".zoom", "nav"):
        assert not printed.locator(gone).first.is_visible()
    plain = opened(java_script_enabled=False)
    assert plain.locator("figure > svg").first.is_visible()
    assert len(rows(plain.locator("#errors-table"))) == 100
    assert plain.get_by_role("img", name="loss").is_visible()


def test_only_its_own_script_runs(browser: Browser, file: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.html"
    attack = (
        '<script>document.title = "changed"</script><img src="https://example.org/x.png" onerror="document.title=1">'
    )
    changed.write_text(file.read_text(encoding="utf-8").replace("<main>", f"<main>{attack}"), encoding="utf-8")
    shown = browser.new_page()
    refused: list[str] = []
    shown.on("console", lambda message: refused.append(message.text))
    shown.goto(changed.as_uri())
    assert shown.title().startswith("token_classification/wnut16")
    assert sum("Content Security Policy" in text for text in refused) >= 3
    assert shown.locator("canvas").first.is_visible()
    shown.close()
