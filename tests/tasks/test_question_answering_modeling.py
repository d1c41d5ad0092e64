"""The model and its batches, the score that chooses a checkpoint, and answers to people's questions."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import NO_FEATURES
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering, BertForTokenClassification

from finetrail.errors import UserError
from finetrail.evaluation import inference
from finetrail.evaluation.splits import Encoded
from finetrail.tasks.question_answering import card, encoding, loading, modeling, scoring, serving, validation
from finetrail.tasks.question_answering.settings import Evaluate, Tokenize, Train

TARGET = {"unanswerable": False}
TOKENIZE = Tokenize.model_construct(max_length=32, stride=4, max_question_length=8, limit=None)
EVALUATE = Evaluate.model_construct(batch_size=2, n_best=3, max_answer_length=8, null_threshold=None, script="squad")
TRAIN = Train.model_construct()

# --- the model ------------------------------------------------------------------------------------------------------


def build(folder: Path) -> Any:
    torch.manual_seed(3)
    return modeling.build_model(folder, TARGET, TRAIN, NO_FEATURES)


def test_a_base_model_keeps_its_encoder_and_gets_a_seeded_head(tiny_checkpoint: Path) -> None:
    one, other = build(tiny_checkpoint), build(tiny_checkpoint)

    assert isinstance(one, BertForQuestionAnswering) and one.qa_outputs.out_features == 2
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    assert one.dtype == torch.float32 and not scoring.base_is_baseline(tiny_checkpoint)
    assert card.PIPELINE_TAG == "question-answering"


def test_a_classifier_base_gets_a_new_head_a_qa_base_keeps_its(tiny_wordpiece: Path, tmp_path: Path) -> None:
    config = BertConfig.from_pretrained(tiny_wordpiece, num_labels=5)
    BertForTokenClassification(config).save_pretrained(tmp_path / "tagger")
    answering = BertForQuestionAnswering(BertConfig.from_pretrained(tiny_wordpiece))
    answering.save_pretrained(tmp_path / "answering")

    assert build(tmp_path / "tagger").qa_outputs.out_features == 2
    kept = build(tmp_path / "answering")
    assert torch.equal(kept.qa_outputs.weight, answering.qa_outputs.weight)
    kept.save_pretrained(tmp_path / "trained")
    loaded = loading.load_model(tmp_path / "trained")
    assert all(torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), kept.state_dict().values(), strict=True))


# --- batches --------------------------------------------------------------------------------------------------------


def rows(*examples: tuple[str, str, str]) -> pa.Table:
    """Return questions with their first answer, "" for none."""
    table = serving.examples([{"question": question, "context": context} for question, context, _ in examples])
    answers = [[{"text": a, "start": context.index(a)}] if a else [] for _, context, a in examples]
    return table.set_column(4, table.schema.field(4), pa.array(answers, table.schema.field(4).type))


TOY = rows(
    ("where ?", "Anna lives in New York .", "New York"),
    ("who lives in Oslo ?", "Kofi lives in Oslo , the café was closed .", "Kofi"),
    ("was it closed ?", "Lee is far from Quito ! Lee met Anna near Lake Geneva with a friend . nobody was home .", ""),
)  # fmt: skip


def encode(folder: Path, examples: pa.Table, types: bool) -> tuple[Any, pa.Table]:
    tokenizer = encoding.load_tokenizer(folder, TOKENIZE, lambda: iter([]))
    names = [*["token_type_ids"] * types, "attention_mask"]
    tokenizer.model_input_names = ["input_ids", *names]
    return tokenizer, encoding.Encoder(tokenizer, TARGET, TOKENIZE).encode(examples, np.arange(len(examples)))


def chosen(features: pa.Table) -> pa.Table:
    """Return the features as training chooses them."""
    return features.select([name for name in modeling.COLUMNS if name in features.column_names])


@pytest.mark.parametrize("types", [True, False])
def test_batches_hold_what_the_model_takes_padded_to_the_longest(tiny_wordpiece: Path, types: bool) -> None:
    tokenizer, features = encode(tiny_wordpiece, TOY, types)

    batch = modeling.build_collator(tokenizer, TRAIN)(chosen(features))

    names = {"input_ids", "attention_mask", "start_positions", "end_positions"}
    assert set(batch) == names | ({"token_type_ids"} if types else set())
    lengths = [len(ids) for ids in features["input_ids"].to_pylist()]
    assert batch["input_ids"].shape == (len(lengths), max(lengths)) and len(set(lengths)) > 1
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert batch["start_positions"].tolist() == features["start_positions"].to_pylist()


def test_the_loss_is_that_of_transformers_without_the_padding(tiny_checkpoint: Path, tiny_wordpiece: Path) -> None:
    tokenizer, features = encode(tiny_wordpiece, TOY, True)
    model, collate = build(tiny_checkpoint).eval(), modeling.build_collator(tokenizer, TRAIN)

    together = model(**collate(chosen(features))).loss.item()

    model._forward_hooks.clear()
    alone = [model(**collate(chosen(features).slice(row, 1))).loss.item() for row in range(len(features))]
    assert together == pytest.approx(np.mean(alone), rel=1e-5)
    assert together != pytest.approx(model(**collate(chosen(features))).loss.item(), rel=1e-2)
    assert 0 in features["start_positions"].to_pylist()  # a window without the answer has the first token as its label


def test_toy_questions_are_learned_and_answered_as_in_test(tiny_checkpoint: Path, tiny_wordpiece: Path) -> None:
    target = {"unanswerable": True}
    settings = EVALUATE.model_copy(update={"null_threshold": 0.0})
    tokenizer, features = encode(tiny_wordpiece, TOY, True)
    batch = modeling.build_collator(tokenizer, TRAIN)(chosen(features))
    model = build(tiny_checkpoint)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(60):
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    model.eval()

    with torch.inference_mode():
        outputs = model(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
    reduced = modeling.reduce(tuple(outputs.values()), None)
    validated = validation.validate((reduced[0].numpy(), reduced[1].numpy()), features, target)
    forward = inference.torch_forward(model)
    stored = scoring.predict(Encoded(TOY, features), {}, target, forward, tokenizer, settings)

    assert validated == {"span_accuracy": 1.0}
    assert stored["predictions"].to_pylist() == ["New York", "Kofi", ""]
    asked = serving.examples([{"question": row["question"], "context": row["context"]} for row in TOY.to_pylist()])
    given = Encoded(asked, encoding.Encoder(tokenizer, target, TOKENIZE).encode(asked, np.arange(3)))
    found = serving.answers(scoring.predict(given, {}, target, forward, tokenizer, settings))
    assert [answer["answer"] for answer in found] == stored["predictions"].to_pylist()
    assert [answer["confidence"] for answer in found] == stored["confidences"].to_pylist()
    first = found[0]
    assert (first["id"], first["start"], first["end"], first["n_best"][0]["text"]) == ("0", 14, 22, "New York")
    assert (found[2]["start"], found[2]["end"], found[2]["n_best"][0]["text"]) == (None, None, "")


# --- the score that chooses a checkpoint ----------------------------------------------------------------------------

windows = st.lists(
    st.tuples(
        st.integers(0, 3),  # example
        st.integers(1, 3),  # where the context begins
        st.integers(1, 4),  # its tokens
        st.booleans(),  # whether the window holds the answer
        st.lists(st.integers(-4, 4), min_size=16, max_size=16),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("unanswerable", [False, True])
@given(drawn=windows)
def test_span_accuracy_is_of_the_best_window_per_example(unanswerable: bool, drawn: list[Any]) -> None:
    length = 8
    logits = np.array([one[4] for one in drawn], dtype=np.float32) + np.arange(16, dtype=np.float32) / 100
    start, end = logits[:, :length], logits[:, length:]
    labels = [(first, first + size - 1) if held else (0, 0) for _, first, size, held, _ in drawn]
    features = pa.table(
        {
            "example": pa.array([example for example, *_ in drawn], pa.int32()),
            "start_positions": pa.array([a for a, _ in labels], pa.int32()),
            "end_positions": pa.array([b for _, b in labels], pa.int32()),
            "context_start": pa.array([first for _, first, *_ in drawn], pa.int32()),
            "starts": pa.array([[0] * size for _, _, size, *_ in drawn], pa.list_(pa.int32())),
        }
    )

    found = validation.span_accuracy(start, end, features, unanswerable)

    right = []
    for example in {example for example, *_ in drawn}:
        best, hit, null = -np.inf, False, np.inf
        for row, (of, first, size, _, _) in enumerate(drawn):
            if of == example:
                a = max(range(first, first + size), key=lambda token: start[row, token])
                b = max(range(first, first + size), key=lambda token: end[row, token])
                if start[row, a] + end[row, b] > best:
                    best, hit = start[row, a] + end[row, b], (a, b) == labels[row] and a > 0
                null = min(null, start[row, 0] + end[row, 0])
        has_answer = any(labels[row][0] for row, one in enumerate(drawn) if one[0] == example)
        if unanswerable:
            hit = (hit and best > null) if has_answer else best <= null
        right.append(hit)
    assert found == pytest.approx(np.mean(right))


def test_padding_and_tokens_before_the_context_are_no_answers() -> None:
    features = pa.table(
        {"example": [4], "start_positions": [2], "end_positions": [3], "context_start": [2], "starts": [[0, 1]]}
    )
    start = np.array([[9, 9, 1, 0, 9, 9]], dtype=np.float32)

    assert validation.span_accuracy(start, start[:, [0, 1, 3, 2, 4, 5]], features, False) == 1.0
    assert validation.span_accuracy(start, start[:, [0, 1, 3, 2, 4, 5]], features, True) == 0.0  # 18 for no answer


# --- people ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"question": "who ?"}, """input '1': there is no context; expected {"question": "...", "context": "..."}"""),
        ({"context": "Oslo"}, "input '1': there is no question; expected"),
        ({"id": "q", "question": 3, "context": "Oslo"}, "input 'q': question is 3; expected"),
        ({"question": "who ?", "context": " "}, "input '1': context is ' '; expected"),
    ],
)
def test_inputs_without_question_or_context_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        serving.examples([{"question": "who ?", "context": "Oslo", "id": "mine"}, given])
    assert str(error.value).startswith(message)


def test_inputs_keep_their_ids_and_a_lone_text_names_the_other() -> None:
    table = serving.examples([{"question": "q", "context": "c", "id": 7}, {"question": "q", "context": "c"}])

    assert table["id"].to_pylist() == ["7", "1"] and table["answers"].to_pylist() == [None, None]
    with pytest.raises(UserError, match=r"'Where was Ada born\?': a question needs a context; .* with --input"):
        serving.text_input("Where was Ada born?")


def test_the_code_of_the_model_card_runs(
    tiny_checkpoint: Path, tiny_wordpiece: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(tiny_checkpoint).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_wordpiece).save_pretrained(tmp_path)
    capsys.readouterr()

    exec(compile(card.usage(str(tmp_path), None), "card", "exec"), {})

    printed = capsys.readouterr().out.strip()
    assert printed and printed in "Ada Lovelace was born in London in 1815."
    assert (card.LIBRARY, card.labels(TARGET)) == ("transformers", [])


def test_encoding_and_corpus_import_no_torch() -> None:
    code = (
        "import sys, finetrail.tasks.question_answering.corpus, finetrail.tasks.question_answering.encoding\n"
        "import finetrail.tasks.question_answering.serving\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
