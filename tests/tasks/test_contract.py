"""What holds for every task: its pipeline runs, its bytes repeat, and inference answers as evaluation predicted."""

import ast
import copy
import gc
import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from toys import TOYS, projects

from finetrail import demo, inference, layout, params, predict, serve, service, tasks, upgrades
from finetrail.evaluation import splits
from finetrail.exporting import __main__ as exporting
from finetrail.stage import read_json as read
from stages import download_corpus, download_model, evaluate, export, report, tokenize, train

EARLIER = Path(__file__).parent.parent / "upgrades"  # COMMIT/TASK/finetrail.json, as that commit's export wrote it
STAGES = (download_corpus, download_model, tokenize, train, evaluate, export, report)


def test_every_task_has_a_toy() -> None:
    assert sorted(TOYS) == tasks.names()


@pytest.fixture(scope="module")
def at(request: pytest.FixtureRequest) -> Iterator[Callable[[str], Path]]:
    """Return the function that enters the project of a task, run once through all stages."""
    with projects(request, *STAGES, sliced=True) as enter:
        yield enter


@pytest.fixture(params=tasks.names())
def task(request: pytest.FixtureRequest, at: Callable[[str], Path], restored_torch: None) -> str:
    at(request.param)
    return str(request.param)


def stored() -> pa.Table:
    return pq.read_table(layout.PREDICTIONS, filters=[("split", "=", "test")]).drop_columns("split")


def inputs(task: str) -> list[dict[str, Any]]:
    """Return the test split as people would ask: rows of the corpus, or blocks where the task packs texts."""
    encoded = splits.load("test")
    rows = encoded.features if task == "masked_lm" else encoded.examples
    return [TOYS[task].ask(row) for row in rows.to_pylist()]


def test_the_headline_has_an_interval_and_baselines(task: str) -> None:
    metrics = read(layout.RECORD)
    name = metrics["headline"]
    for split in ("validation", "test"):
        scores = metrics[split]
        assert scores[f"{name}_low"] <= scores[name] <= scores[f"{name}_high"]
        assert metrics["baselines"][split]
    assert metrics["export"]["onnx_fp32"]["disagreements"] == 0


def test_the_record_says_which_scores_are_better_when_lower(task: str) -> None:
    record = read(layout.RECORD)
    errors = {"masked_lm": ["loss", "perplexity"], "text_classification": ["ece"]}
    errors["text_generation"] = ["bits_per_byte", "loss", "perplexity", "repetition_4"]

    assert record["lower_is_better"] == read(layout.EVALUATION_METRICS)["lower_is_better"]
    assert record["lower_is_better"] == [name for name in errors.get(task, []) if name in record["test"]]
    # A record of an earlier version does not say it, and is read as if it did.
    assert upgrades.record({key: value for key, value in record.items() if key != "lower_is_better"}) == record


def test_every_score_has_an_interval(task: str) -> None:
    evaluation = read(layout.EVALUATION_METRICS)
    for split in ("validation", "test"):
        names = {name for name in evaluation[split] if not name.endswith(("_low", "_high"))}
        assert {name for name in names if f"{name}_low" in evaluation[split]} >= {evaluation["headline"]}
        assert all(isinstance(evaluation[split][name], float) for name in names)


def test_predictions_have_id_references_and_confidences(task: str) -> None:
    names = set(stored().column_names)
    assert {"id", "references", "predictions"} <= names
    assert len(names & {"confidences", "scores"}) == 1


def test_two_runs_can_be_compared(task: str) -> None:
    """The statistic of two runs' stacked rows gives each run's scores by weights of 1 and 0; as comparison/ has it."""
    scoring, target = tasks.module(task, "scoring"), read(layout.TARGET)
    settings = params.load("evaluate").evaluate
    units = scoring.units(stored())
    n = len(units)
    half = np.concatenate([np.ones((1, n)), np.zeros((1, n))], axis=1)
    statistic = scoring.statistics(pa.concat_tables([units, units.take(np.arange(n)[::-1])]), target, settings)
    scores = scoring.score(stored(), target, settings)
    for weights in (half, half[:, ::-1]):
        found = {name: float(values[0]) for name, values in statistic(weights).items()}
        assert found == pytest.approx({name: scores[name] for name in found})
    outcomes = scoring.outcomes(units, target, settings)
    assert len(outcomes) == n
    for outcome in outcomes:
        assert outcome.keys() == {"score", "input", "reference", "prediction"}
        assert isinstance(outcome["score"], float)
        assert all(isinstance(outcome[name], str) for name in ("input", "reference", "prediction"))


def test_slices_are_scored_as_if_they_were_the_whole_split(task: str) -> None:
    scoring, target = tasks.module(task, "scoring"), read(layout.TARGET)
    settings, units = params.load("evaluate").evaluate, scoring.units(stored())
    rows = pd.read_csv(layout.EVALUATION / "slices.csv").query("slicing == 'source'").set_index("slice")
    assert set(rows.index) == {"web", "books"}
    metric = scoring.headline(target, settings)
    for name, other in (("web", "books"), ("books", "web")):
        for column, value in (("score", name), ("rest", other)):
            part = units.filter(pc.equal(units["slice_source"], value))
            assert scoring.score(part, target, settings)[metric] == pytest.approx(rows.loc[name, column])
        assert rows.loc[name, "low"] <= rows.loc[name, "score"] <= rows.loc[name, "high"]


def test_predictions_have_the_slice_columns_of_the_recipe(task: str) -> None:
    corpus, predictions = splits.load("test").examples.to_pylist(), stored().to_pylist()
    source = {row["id"]: row["slice_source"] for row in corpus}
    ids = [row["id"].rpartition(":")[0] if task == "masked_lm" else row["id"] for row in predictions]
    assert [row["slice_source"] for row in predictions] == [source[name] for name in ids]
    assert set(source.values()) == {"web", "books"}


def test_the_report_shows_the_scores_the_tables_and_the_errors(task: str) -> None:
    page = layout.REPORT.read_text(encoding="utf-8")
    assert read(layout.RECORD)["headline"] in page
    for path in layout.EVALUATION.glob("*.csv"):
        assert path.stem.replace("_", " ").capitalize() in page
        assert len(pd.read_csv(path))
    assert (layout.PLOTS / "headline.svg").is_file()


def test_each_count_that_should_be_zero_is_a_concern(task: str) -> None:
    concerns, checks = tasks.module(task, "concerns"), read(layout.CORPUS_CHECKS)
    known = set(map(str, concerns.of_corpus(checks)))
    words = {name: value for name, value in vars(concerns).items() if name.startswith("OF_")}
    for name in {name for table, of_table in words.items() if table != "OF_FEATURES" for name in of_table}:
        table = "documents" if name not in words.get("OF_QUERIES", words.get("OF_CORPUS", {})) else "test"
        counts = copy.deepcopy(checks)
        counts["splits"][table][name] = 1234
        told = set(map(str, concerns.of_corpus(counts))) - known
        assert [line for line in told if line.startswith(f"{table}: ") and line.endswith(": 1,234")], name
    for name in words.get("OF_FEATURES", {}):
        assert [*map(str, concerns.of_features({"test": {name: 2}}))][0].endswith(": 2")


def test_the_page_the_record_and_the_card_tell_the_same_concerns(task: str) -> None:
    concerns, counts = tasks.module(task, "concerns"), read(layout.TOKENIZED_COUNTS)["splits"]
    told = [*map(str, concerns.of_corpus(read(layout.CORPUS_CHECKS))), *map(str, concerns.of_features(counts))]
    assert read(layout.RECORD).get("concerns", []) == told
    page, card = layout.REPORT.read_text(), (layout.EXPORTED / "README.md").read_text()
    for line in told:
        assert f"<li>{html.escape(line)}." in page
    assert card.count("- The data: ") == len(told)


def test_form_timings_are_measured_and_in_no_stage_output(task: str) -> None:
    before = layout.REPORT.read_bytes()
    exporting.main()
    timings = read(layout.EXPORT_TIMINGS)
    assert list(timings["forms"])[:2] == ["torch", "onnx"] and timings["inputs"] > 1 and timings["tokens"] > 1
    for form in timings["forms"].values():
        assert 0 < form["ms"] <= form["ms_90"] and form["mib"] > 0
    assert f"{timings['forms']['onnx']['ms']:.2f}" in layout.TIMED_REPORT.read_text(encoding="utf-8")
    assert layout.REPORT.read_bytes() == before and b"median ms" not in before


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_inference_gives_the_predictions_that_evaluation_stored(task: str, runtime: Any) -> None:
    documents = None
    if (layout.CORPUS / "documents.parquet").is_file():
        documents = pq.read_table(layout.CORPUS / "documents.parquet").to_pylist()
    predict = inference.load(layout.EXPORTED, runtime, documents=documents)
    serving = tasks.module(task, "serving")
    asked = inputs(task)
    ids = [str(number) for number in range(len(asked))]
    expected = serving.answers(stored())
    found = predict(asked)
    assert [one["id"] for one in found] == ids and len(expected) == len(ids)
    for one, other in zip(found, expected, strict=True):
        assert comparable(one) == comparable(other)


def comparable(answer: dict[str, Any]) -> Any:
    """Return an answer without its id, and with numbers that may differ in their last digits rounded."""
    rounded = json.loads(json.dumps(answer), parse_float=lambda text: round(float(text), 4))
    rounded.pop("id", None)
    return rounded


def test_inference_does_not_depend_on_what_else_is_asked(task: str) -> None:
    documents = None
    if (layout.CORPUS / "documents.parquet").is_file():
        documents = pq.read_table(layout.CORPUS / "documents.parquet").to_pylist()
    predict = inference.load(layout.EXPORTED, "torch", documents=documents)
    asked = inputs(task)[:3]
    alone = [predict([one])[0] for one in asked]
    assert list(map(comparable, predict(asked))) == list(map(comparable, alone))


@pytest.mark.parametrize("commit", sorted({path.parents[1].name for path in EARLIER.rglob("finetrail.json")}))
def test_a_folder_of_an_earlier_version_answers_as_one_of_this(task: str, commit: str, tmp_path: Path) -> None:
    folder = shutil.copytree(layout.EXPORTED, tmp_path / "exported")
    shutil.copy(EARLIER / commit / task / "finetrail.json", folder)  # of a model of this toy
    documents = None
    if (layout.CORPUS / "documents.parquet").is_file():
        documents = pq.read_table(layout.CORPUS / "documents.parquet").to_pylist()
    asked = inputs(task)[:3]
    now, earlier = (inference.load(path, "onnx", documents=documents)(asked) for path in (layout.EXPORTED, folder))
    assert earlier == now


def test_training_and_evaluation_again_give_the_same_bytes(task: str) -> None:
    kept = [layout.TRAINED / "model.safetensors", layout.PREDICTIONS, layout.EVALUATION_METRICS, layout.TARGET]
    before = [path.read_bytes() for path in kept]
    for stage in (tokenize, train, evaluate):
        stage.main()
    assert [path.read_bytes() for path in kept] == before


def test_features_do_not_depend_on_how_examples_come(task: str) -> None:
    declared, encoding = read(layout.TOKENIZED_COUNTS)["settings"], tasks.module(task, "encoding")
    settings = tasks.module(task, "settings").Tokenize(**declared, engine="local", num_proc=1)
    tokenizer = encoding.load_tokenizer(layout.TRAINED, settings, tokenize.train)
    encoder = encoding.Encoder(tokenizer, read(layout.TARGET), settings)
    for table in encoder.tables:
        whole = list(tokenize.read(layout.table_file(layout.CORPUS, table), None))
        parts = [(rows[i : i + 5], examples.slice(i, 5)) for rows, examples in whole for i in range(0, len(rows), 5)]
        together, apart = (
            pa.concat_tables(features for features, _ in encoder.encode_table(table, iter(batches)))
            for batches in (whole, parts)
        )
        assert together.combine_chunks() == apart.combine_chunks()


def test_a_limit_takes_fewer_examples_of_each_split(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(name, tmp_path)
    shutil.copytree("recipes", tmp_path / "recipes")
    (tmp_path / "data").mkdir()
    for name in ("corpus", "model"):
        (tmp_path / "data" / name).symlink_to(Path("data", name).absolute())
    monkeypatch.chdir(tmp_path)
    params = YAML().load(layout.PARAMS)
    params["limit"] = 5
    YAML().dump(params, layout.PARAMS)
    tokenize.main()
    counts = read(layout.TOKENIZED_COUNTS)["splits"]
    assert [counts[split]["examples"] for split in layout.SPLITS] == [5, 5, 5]


# Shorter examples, in words that the toys know: what the card takes whole, finetrail must not take in windows.
SHORT = {
    '["Ada", "Lovelace", "was", "born", "in", "London", "."]': '["Anna", "lives", "in", "Oslo", "."]',
    "The capital of France is": "Anna lives in",
    "path/to/this/folder": "data/exported",
}
# What the ONNX example says and what it has to, from what is printed, the names of both examples, and our answer.
SAID: dict[str, Callable[[str, dict[str, Any], dict[str, Any], Callable[[Any], Any]], tuple[Any, Any]]] = {
    "masked_lm": lambda said, onnx, torch, answer: (
        ast.literal_eval(said)[0],
        tuple(best[0] for best in list(answer({"text": onnx["text"]})["masks"][0].values())),
    ),
    "question_answering": lambda said, onnx, torch, answer: (said, torch["said"]),
    "retrieval": lambda said, onnx, torch, answer: (
        (onnx["queries"] @ onnx["documents"].T).tolist(),
        torch["model"].similarity(torch["queries"], torch["documents"]).tolist(),
    ),
    "text_classification": lambda said, onnx, torch, answer: (
        ast.literal_eval(said),
        answer({"text": "One text."})["probabilities"],
    ),
    "text_generation": lambda said, onnx, torch, answer: (said, greedy(torch["generator"], onnx["text"]).strip()),
    "token_classification": lambda said, onnx, torch, answer: (
        ast.literal_eval(said),
        list(zip(onnx["words"], answer({"tokens": onnx["words"]})["labels"], strict=True)),
    ),
}


def greedy(generator: Any, prompt: str) -> str:
    """Continue a prompt as the ONNX example does, by transformers."""
    ids = generator.tokenizer(prompt, return_tensors="pt").input_ids
    found = generator.model.generate(ids, max_length=None, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    return str(generator.tokenizer.decode(found, skip_special_tokens=True))


def test_the_examples_of_the_card_run_and_onnx_says_the_same(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    card = (layout.EXPORTED / "README.md").read_text(encoding="utf-8")
    for long, short in SHORT.items():
        card = card.replace(long, short)
    torch, onnx = {}, {}
    for names, block in zip((torch, onnx), re.findall(r"```python\n(.*?)```", card, re.DOTALL), strict=True):
        exec(compile(block, "card", "exec"), names)  # noqa: S102
        names["said"] = capsys.readouterr().out.strip()
        assert names["said"]
    found, expected = SAID[task](onnx["said"], onnx, torch, lambda asked: inference.load(layout.EXPORTED)([asked])[0])
    assert comparable({"said": found}) == comparable({"said": expected})


def test_the_exported_folder_stands_alone(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(layout.EXPORTED, tmp_path / "model")
    documents = [{"id": "a", "text": "Anna lives in Oslo ."}] if task == "retrieval" else None
    asked = inputs(task)[:2]
    monkeypatch.chdir(tmp_path)
    assert len(inference.load(Path("model"), documents=documents)(asked)) == 2


# --- the service --------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


def documents() -> Path | None:
    """Return the documents of the corpus as a file of predict's, where the task has some."""
    path = layout.table_file(layout.CORPUS, "documents")
    if not path.is_file():
        return None
    lines = map(json.dumps, pq.read_table(path).to_pylist())
    Path("documents.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return Path("documents.jsonl")


@pytest.mark.parametrize("runtime", ["onnx", "onnx_int8"])
def test_requests_answered_together_are_answered_as_if_alone(task: str, runtime: Any) -> None:
    """Also with int8, whose activations share a range within a batch; comparable() rounds to four digits."""
    options = Namespace(folder=layout.EXPORTED, batch_size=serve.STEP, documents=documents(), threads=1)
    ask = serve.loaded(options, runtime)
    asked = inputs(task)[:9]
    requests = [asked[:1], asked[1:4], asked[4:]]
    found = service.together(ask, requests)
    for answers, request in zip(found, requests, strict=True):
        assert isinstance(answers, list)
        alone = [one for number, given in enumerate(request) for one in ask([given], first_id=number)]
        assert [answer["id"] for answer in answers] == [str(number) for number in range(len(request))]
        assert list(map(comparable, answers)) == list(map(comparable, alone))


def test_the_probe_is_answered_by_every_model(task: str) -> None:
    probe = tasks.module(task, "serving").probe(inference.read_settings(layout.EXPORTED).target)
    assert len(predict.load(layout.EXPORTED, inference.preferred_runtime(layout.EXPORTED), 8, None)([probe]))


def test_the_service_starts_fast_without_torch_and_ends_on_term(at: Callable[[str], Path]) -> None:
    at("token_classification")
    command = [sys.executable, "-m", "finetrail.serve", str(layout.EXPORTED), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert line.startswith("serve: token_classification by onnx, loaded in ")
        body = json.dumps(inputs("token_classification")[:2]).encode()
        with urllib.request.urlopen(line.split()[-1], body, timeout=20) as answer:
            answers = json.loads(answer.read())
        maps = Path(f"/proc/{process.pid}/maps")
        if maps.is_file():
            assert "onnxruntime" in maps.read_text() and "libtorch" not in maps.read_text()
        process.send_signal(signal.SIGTERM)
        assert (process.wait(20), process.stderr.read()) == (0, "")
    expected = inference.load(layout.EXPORTED, "onnx")(inputs("token_classification")[:2])
    assert list(map(comparable, answers)) == list(map(comparable, expected))


# --- the page -----------------------------------------------------------------------------------------------------

HTML = "<img src=x onerror=alert(1)> [MASK] <b>bold</b>"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return the machine's Chromium."""
    pytest.importorskip("gradio", reason="the extra try is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if (path := shutil.which("chromium")) is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


def words(value: Any) -> list[str]:
    """Return the texts of a value that a view shows."""
    if isinstance(value, dict):
        return [name for name in value if value[name] == max(value.values())]
    if isinstance(value, list):
        return [text for one in value for part in one if isinstance(part, str) for text in part.split()]
    return str(value).split()


# Two kinds of input; CI tries the pages of the others too.
PAGES = [
    name if name in ("question_answering", "token_classification") else pytest.param(name, marks=pytest.mark.slow)
    for name in tasks.names()
]


@pytest.mark.filterwarnings("ignore")  # Gradio's own
@pytest.mark.parametrize("task", PAGES, indirect=True)
def test_the_page_answers_an_example_and_loads_nothing_remote(task: str, browser: Any) -> None:
    settings, of_task = inference.read_settings(layout.EXPORTED), tasks.module(task, "demo")
    show, about = demo.loaded(layout.EXPORTED, settings, of_task, None)
    examples = [list(one.values()) for one in demo.asked(layout.EXPORTED, of_task)]
    assert len(examples) == demo.EXAMPLES
    html = [HTML] * len(examples[0])
    blocks = demo.page(settings, of_task, show, [*examples, html], about)
    address = demo.launch(blocks, None, wait=False)
    page = browser.new_page()
    try:
        requests: list[str] = []
        problems: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
        page.goto(address)
        offered = page.locator("#examples .gallery-item, #examples .tr-body td:first-child")
        for number, texts in ((0, examples[0]), (len(examples), html)):
            expected = show(*texts)
            offered.nth(number).click()
            for place, value in enumerate(expected):
                shown = page.locator(f"#output-{place}")
                box = shown.locator("textarea")
                for word in words(value):
                    page.wait_for_function(
                        "([element, word]) => (element.value ?? element.textContent).includes(word)",
                        arg=[(box if box.count() else shown).element_handle(), word],
                        timeout=10_000,
                    )
        assert page.locator("img[src=x]").count() == 0
        assert problems == []
        assert requests and all(url.startswith((address, "data:", "blob:")) for url in requests)
    finally:
        page.close()
        blocks.close(verbose=False)
        gc.collect()  # of event loops that Gradio leaves open, whose warnings are ignored here
