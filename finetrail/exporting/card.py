"""Turns the records of a run into the README.md of its exported folder: metadata for the Hub, text for people."""

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from finetrail import licenses
from finetrail.exporting.forms import ONNX_FILES

TEMPLATE = "card.md.jinja"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SPDX_ID = re.compile(r"[A-Za-z0-9.+-]+")

Record = dict[str, Any]

MARKUP = re.compile(r"([\\`*|\[\]])")


def model_card(
    *,
    corpus: Record,
    base_model: Record,
    tokenized: Record,
    training: Record,
    evaluation: Record,
    concerns: Sequence[object],
    export: Record,
    label_names: list[str],
    library: str,
    pipeline_tag: str,
    usage: str,
    onnx_usage: str,
    hub_repo: str | None,
    folders: list[str],
) -> str:
    """Return the card; the records are the JSON files of the stages, as read, and usage and onnx_usage Python code.

    concerns: what a reader should know about the data, a sentence each.

    folders are those of the models of several heads inside this one. onnx_usage finds session, tokenizer and config.
    Both examples name the model by hub_repo, or by a folder where that is None.
    """
    metadata = _metadata(corpus, base_model, evaluation, library, pipeline_tag, hub_repo)
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(
            metadata=metadata.to_yaml(),
            corpus=corpus,
            base_model=base_model,
            origins={title: _origin(provenance) for title, provenance in _origins(corpus, base_model).items()},
            unlicensed=[
                provenance["name"]
                for provenance in _origins(corpus, base_model).values()
                if licenses.shown(provenance) == licenses.UNKNOWN
            ],
            parts=_parts(evaluation),
            training={key: value for key, value in training.items() if isinstance(value, (str, int, float))},
            machine=training["machine"],
            evaluated_on={} if evaluation["machine"] == training["machine"] else evaluation["machine"],
            limit=tokenized["settings"].get("limit"),
            concerns=list(map(str, concerns)),
            headline=evaluation["headline"],
            beside=evaluation.get("beside", []),
            scores=_scores(evaluation),
            baselines=evaluation.get("baselines", {}).get("test", {}),
            int8=export.get("onnx_int8"),
            fp32=export["onnx_fp32"],
            label_names=label_names,
            usage=usage,
            onnx_usage=onnx_usage,
            onnx_file=ONNX_FILES["onnx"],
            int8_file=ONNX_FILES["onnx_int8"],
            adapter=(training.get("lora") or {}).get("keep", False),
            confidence=f"{evaluation['confidence'] * 100:.4g}%",
            hub_repo=hub_repo,
            folders=folders,
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": _cell, "code": _code, "prose": _prose, "score": "{:.4f}".format}
    return environment


def _metadata(
    corpus: Record, base_model: Record, evaluation: Record, library: str, pipeline_tag: str, hub_repo: str | None
) -> ModelCardData:
    base_id = _hub_repo(base_model) or base_model["name"]
    hub_dataset = _hub_repo(corpus)
    results = [
        EvalResult(
            task_type=pipeline_tag,
            dataset_type=hub_dataset or re.sub(r"[^a-z0-9]+", "-", corpus["name"].lower()).strip("-"),
            dataset_name=corpus["name"],
            dataset_revision=corpus["resolved"].get("commit") if hub_dataset else None,
            dataset_split="test",
            metric_type=score["metric"],
            metric_value=score["test"],
        )
        for score in _scores(evaluation)
    ]
    return ModelCardData(
        language=corpus["language"],
        **_license(base_model["license"]),
        library_name=library,
        pipeline_tag=pipeline_tag,
        tags=["onnx", "finetrail"],
        base_model=base_id if HUB_ID.fullmatch(base_id) else None,
        datasets=[hub_dataset] if hub_dataset else None,
        metrics=[result.metric_type for result in results],
        model_name=hub_repo or f"{base_model['name']} fine-tuned on {corpus['name']}",
        eval_results=results,
    )


def _hub_repo(provenance: Record) -> str | None:
    return provenance["source"]["repo"] if provenance["kind"] == "hub" else None


def _origins(corpus: Record, base_model: Record) -> dict[str, Record]:
    """Return the provenance of the corpus, the base model and the teacher, by title."""
    origins = {
        f"Corpus: {corpus['name']}": corpus,
        **{f"Its part {name}: {part['name']}": part for name, part in corpus.get("parts", {}).items()},
        **{f"Beside it: {name}": more | {"name": name} for name, more in corpus.get("beside", {}).items()},
        f"Base model: {base_model['name']}": base_model,
    }
    if teacher := base_model.get("teacher"):
        origins[f"Teacher: {teacher['name']}"] = teacher
    return origins


def _origin(provenance: Record) -> Record:
    """Return what identifies a source, without paths and URLs, which may name a machine or contain a token."""
    named = {key: provenance["source"].get(key) for key in ("package", "version", "config")}
    rows = {"source": provenance["kind"], "repository": _hub_repo(provenance), **named, **provenance["resolved"]}
    rows |= {"sha256": provenance["sha256"], "license": licenses.shown(provenance)}
    rows |= {"layers kept": ", ".join(map(str, provenance["layers"]))} if "layers" in provenance else {}
    return {key: value for key, value in rows.items() if value is not None and not isinstance(value, dict)}


def _license(name: str | None) -> dict[str, Any]:
    """Return the Hub's fields for a licence: its lower-case SPDX id, or `other` with a name."""
    if name is None:
        return {}
    if SPDX_ID.fullmatch(name):
        return {"license": name.lower()}
    return {"license": "other", "license_name": re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")}


def _scores(evaluation: Record) -> list[Record]:
    """Return a row for each metric of the test split, the headline first; low and high are None without an interval."""
    test, validation, headline = evaluation["test"], evaluation["validation"], evaluation["headline"]
    bounds = {f"{metric}_{end}" for metric in test for end in ("low", "high")}
    metrics = [headline, *(metric for metric in test if metric != headline and metric not in bounds)]
    return [
        {
            "metric": metric,
            "test": test[metric],
            "low": test.get(f"{metric}_low"),
            "high": test.get(f"{metric}_high"),
            "validation": validation.get(metric),
        }
        for metric in metrics
    ]


def _parts(evaluation: Record) -> list[Record]:
    """Return a row for each part of a mixture: the headline on the test split, and its best baseline."""
    headline = evaluation["headline"]
    choose = min if headline in evaluation["lower_is_better"] else max
    return [
        {
            "part": name,
            "test": found["test"][headline],
            "low": found["test"].get(f"{headline}_low"),
            "high": found["test"].get(f"{headline}_high"),
            "baseline": choose(values[headline] for values in found["baselines"]["test"].values()),
        }
        for name, found in evaluation.get("parts", {}).items()
    ]


def _cell(value: Any) -> str:
    """Format a value for a cell of a Markdown table."""
    if value is None:
        return ""
    return _prose(f"{value:.4g}" if isinstance(value, float) else str(value))


def _prose(text: str) -> str:
    """Escape a name for Markdown: its markup, links, images, HTML and line breaks become text."""
    return MARKUP.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _code(value: str) -> str:
    """Format a name as code, which shows it verbatim."""
    return f"`{' '.join(value.split()).replace('`', chr(39))}`"
