"""Pairs against the transformers tokenizer called on one pair after the other, and labels against run_qa.py's."""

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import real
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer, RobertaConfig

from finetrail.corpus import readers
from finetrail.errors import UserError
from finetrail.schema import SquadReader
from finetrail.tasks.question_answering import corpus, encoding
from finetrail.tasks.question_answering.settings import NULL_POSITION, Corpus, Tokenize

ROOT = Path(__file__).parents[2]
KINDS = ("tiny_wordpiece", "tiny_bpe", "tiny_sentencepiece", "tiny_sentencepiece_first")
TARGET = {"unanswerable": False}
LOADED: dict[Path, Any] = {}


def tokenize(max_length: int = 64, stride: int = 0, max_question_length: int = 16) -> Tokenize:
    return Tokenize.model_construct(
        max_length=max_length, stride=stride, max_question_length=max_question_length, limit=None
    )


def load(folder: Path) -> Any:
    """Load a tokenizer that gives token types, as those of BERT's own class do."""
    if folder not in LOADED:
        LOADED[folder] = encoding.load_tokenizer(folder, tokenize(16), lambda: iter([]))
        LOADED[folder].model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return LOADED[folder]


def table(*examples: tuple[str, str, list[tuple[str, int]] | None]) -> pa.Table:
    rows = [
        {
            "id": str(number),
            "title": None,
            "question": question,
            "context": context,
            "answers": None if answers is None else [{"text": text, "start": start} for text, start in answers],
        }
        for number, (question, context, answers) in enumerate(examples)
    ]
    return pa.Table.from_pylist(rows, corpus.SCHEMA)


def encode(tokenizer: Any, examples: pa.Table, how: Tokenize) -> list[dict[str, Any]]:
    return encoding.Encoder(tokenizer, TARGET, how).encode(examples, np.arange(len(examples))).to_pylist()


def text_of(context: str, start: int, end: int) -> tuple[int, str]:
    """Return where a token's text begins, and the text, without white space around it; nothing begins nowhere.

    Accents before and after it belong to it: no answer begins or ends within a character.
    """
    text = context[start:end].strip()
    if not text:
        return -1, ""
    start = context.index(text, start)
    end = start + len(text)
    while end < len(context) and continues(context[end]):
        end += 1
    while start and continues(context[start]):
        start -= 1
    return start, context[start:end]


def continues(character: str) -> bool:
    return unicodedata.category(character).startswith("M") or 0x1160 <= ord(character) < 0x1200


WORDS = [
    "0\U00016f4f",
    "Anna",
    "lives",
    "New",
    "York",
    "unbelievable",
    "서울",
    "학교에서",
    "[SEP]",
    "naïve",
    "e\u0301te\u0301",
    "!?",
    "🙂",
    "👩‍👩‍👧",
    "日本",
]
BLANKS = [" ", "  ", "\n", "", ", ", "\u3000", "\u00a0"]
words = st.one_of(st.sampled_from(WORDS), st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10))
texts = st.lists(st.tuples(words, st.sampled_from(BLANKS)), min_size=1, max_size=40).map(
    lambda parts: "".join(word + blank for word, blank in parts)
)


def reference(tokenizer: Any, question: str, context: str, how: Tokenize) -> list[dict[str, Any]]:
    """Encode one pair as run_qa.py does, with the library's own overflowing windows."""
    encoded = tokenizer(
        question, context, truncation="only_second", max_length=how.max_length, stride=how.stride,
        return_overflowing_tokens=True, return_offsets_mapping=True, return_token_type_ids=True,
    )  # fmt: skip
    features = []
    for window, ids in enumerate(encoded["input_ids"]):
        inside = [place for place, text in enumerate(encoded.sequence_ids(window)) if text == 1]
        places = [text_of(context, *encoded["offset_mapping"][window][place]) for place in inside]
        features.append({"input_ids": ids, "token_type_ids": encoded["token_type_ids"][window], "places": places})
        if inside:
            features[-1]["context_start"] = inside[0]
    return features


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_ids_types_windows_and_characters_are_the_librarys(
    kind: str, request: pytest.FixtureRequest, data: st.DataObject
) -> None:
    tokenizer = load(request.getfixturevalue(kind))
    pairs = data.draw(st.lists(st.tuples(words, texts), min_size=1, max_size=4), "pairs")
    asked = max(len(tokenizer(question, add_special_tokens=False)["input_ids"]) for question, _ in pairs)
    stride = data.draw(st.integers(0, 8), "stride")
    room = tokenizer.num_special_tokens_to_add(pair=True) + asked + stride + data.draw(st.integers(1, 12), "step")
    how = tokenize(room, stride, asked)

    found = encode(tokenizer, table(*[(question, context, None) for question, context in pairs]), how)

    expected = [
        {"example": row} | feature for row, pair in enumerate(pairs) for feature in reference(tokenizer, *pair, how)
    ]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        spans = zip(one["starts"], one["ends"], strict=True)
        one["places"] = [text_of(pairs[one["example"]][1], *span) for span in spans]
        assert all(
            len(text) == end - start
            for (_, text), start, end in zip(one["places"], one["starts"], one["ends"], strict=True)
        )
        assert {name: one[name] for name in other} == other
        assert (one["start_positions"], one["end_positions"]) == (None, None)


# tokens: [CLS] a b [SEP] Anna lives in New York . [SEP], of which every word is one in the tiny vocabulary
BY_HAND = ("a friend", "Anna lives near New York , a friend lives in Oslo .", "New York")


def test_windows_and_labels_by_hand(tiny_wordpiece: Path) -> None:
    tokenizer, (question, context, answer) = load(tiny_wordpiece), BY_HAND
    start = context.index(answer)
    examples = table((question, context, [(answer, start)]), (question, context, []), (question, context, None))

    found = encode(tokenizer, examples, tokenize(max_length=5 + 6, stride=2, max_question_length=2))

    tokens = [tokenizer.convert_ids_to_tokens(feature["input_ids"]) for feature in found]
    frame = ["[CLS]", "a", "friend", "[SEP]"]
    assert tokens[:3] == [
        [*frame, "anna", "lives", "near", "new", "york", ",", "[SEP]"],
        [*frame, "york", ",", "a", "friend", "lives", "in", "[SEP]"],
        [*frame, "lives", "in", "oslo", ".", "[SEP]"],
    ]
    assert [feature["example"] for feature in found] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert found[0]["token_type_ids"] == [0] * 4 + [1] * 7
    assert [feature["context_start"] for feature in found] == [4] * 9
    # The second window holds the end of the answer alone: no answer there.
    labels = [(feature["start_positions"], feature["end_positions"]) for feature in found]
    assert labels == [(7, 8), (0, 0), (0, 0)] + [(0, 0)] * 3 + [(None, None)] * 3
    assert context[found[0]["starts"][7 - 4] : found[0]["ends"][8 - 4]] == answer
    assert NULL_POSITION == 0


def test_a_long_question_is_cut_and_everything_is_counted(tiny_wordpiece: Path) -> None:
    tokenizer, (question, context, answer) = load(tiny_wordpiece), BY_HAND
    start = context.index(answer)
    examples = table(
        ("in " * 9, context, [(answer, start)]),
        (question, context, [("k ,", context.index("k ,"))]),  # inside of a word
        (question, context, [(context, 0)]),  # longer than any window
        (question, "\u200b\u200b", [("\u200b", 0)]),  # which this tokenizer drops
        (question, "Oslo", None),
    )
    encoder = encoding.Encoder(tokenizer, TARGET, tokenize(max_length=5 + 6, stride=2, max_question_length=2))

    [(features, counts)] = encoder.encode_table("test", iter([(np.array([3, 5, 6, 7, 9]), examples)]))

    assert features["example"].to_pylist() == [3, 3, 3, 5, 5, 5, 6, 6, 6, 7, 9]
    assert tokenizer.convert_ids_to_tokens(features["input_ids"][0].as_py())[:4] == ["[CLS]", "in", "in", "[SEP]"]
    assert counts == {
        "examples": 5,
        "features": 11,
        "tokens": sum(map(len, features["input_ids"].to_pylist())),
        "examples_in_windows": 3,
        "answers_in_no_window": 2,
        "answers_within_tokens": 1,
        "examples_truncated": 1,
        "tokens_truncated": 7,
    }
    assert features.schema == encoder.tables["test"] and list(encoder.tables) == ["train", "validation", "test"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_answer_of_whole_words_is_found_with_its_characters(
    kind: str, request: pytest.FixtureRequest, data: st.DataObject
) -> None:
    tokenizer = load(request.getfixturevalue(kind))
    drawn = data.draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=30), "words")
    first = data.draw(st.integers(0, len(drawn) - 1), "first")
    last = data.draw(st.integers(first, min(first + 3, len(drawn) - 1)), "last")
    blank = data.draw(st.sampled_from([" ", "\n ", "\u3000"]), "blank")
    answer = blank.join(drawn[first : last + 1])
    before = blank.join(["Anna", *drawn[:first], ""])
    context = before + answer + blank + blank.join([*drawn[last + 1 :], "Anna"])
    start, end = len(before), len(before) + len(answer)
    stride = data.draw(st.integers(0, 20), "stride")

    found = encode(tokenizer, table(("Anna", context, [(answer, start)])), tokenize(40 + stride, stride, 12))

    for feature in found:
        a, b = (feature[name] - feature["context_start"] for name in ("start_positions", "end_positions"))
        if feature["start_positions"] != NULL_POSITION:
            assert context[feature["starts"][a] : feature["ends"][b]] == answer
        else:
            # Not wholly in this window: it stops at the answer, or within it.
            assert feature["starts"][0] >= start or feature["ends"][-1] <= end


def test_labels_are_run_qas_where_answers_align_with_tokens(tiny_wordpiece: Path) -> None:
    tokenizer, how = load(tiny_wordpiece), tokenize(18, 4, 8)
    contexts = ["Anna lives in New York , nobody saw Lake Geneva near Oslo . ask Kofi about the café was closed !"] * 40
    draw = np.random.default_rng(0)
    examples = []
    for context in contexts:
        parts = context.split(" ")
        first = int(draw.integers(len(parts)))
        last = min(len(parts) - 1, first + int(draw.integers(4)))
        answer = " ".join(parts[first : last + 1])
        examples.append(("who lives in Oslo ?", context, [(answer, len(" ".join([*parts[:first], ""])))]))

    found = encode(tokenizer, table(*examples), how)

    expected = [label for example in examples for label in run_qa_labels(tokenizer, example, how)]
    assert [(feature["start_positions"], feature["end_positions"]) for feature in found] == expected
    assert len(set(expected)) > 20


def run_qa_labels(
    tokenizer: Any, example: tuple[str, str, list[tuple[str, int]]], how: Tokenize
) -> list[tuple[int, int]]:
    """Label windows by walking over the offsets, as the example run_qa.py of transformers does."""
    question, context, [(answer, start_char)] = example
    end_char = start_char + len(answer)
    encoded = tokenizer(
        question, context, truncation="only_second", max_length=how.max_length, stride=how.stride,
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    labels = []
    for window, offsets in enumerate(encoded["offset_mapping"]):
        inside = [place for place, text in enumerate(encoded.sequence_ids(window)) if text == 1]
        first, last = inside[0], inside[-1]
        if offsets[first][0] > start_char or offsets[last][1] < end_char:
            labels.append((0, 0))
            continue
        while first <= inside[-1] and offsets[first][0] <= start_char:
            first += 1
        while last >= inside[0] and offsets[last][1] >= end_char:
            last -= 1
        labels.append((first - 1, last + 1))
    return labels


@pytest.mark.parametrize("cut", [1, 3, 1000])
def test_features_do_not_depend_on_how_examples_come(tiny_bpe: Path, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "EXAMPLES_A_CALL", cut)
    context = BY_HAND[1]
    examples = table(*[(context[number:], context * (1 + number % 3), [("Anna", 0)]) for number in range(7)])
    encoder = encoding.Encoder(load(tiny_bpe), TARGET, tokenize(40, 8, 10))

    parts = encoder.encode_table("train", iter([(np.arange(5), examples[:5]), (np.arange(5, 7), examples[5:])]))

    whole = encoder.encode(examples, np.arange(7))
    assert pa.concat_tables(features for features, _ in parts).combine_chunks() == whole.combine_chunks()


def test_token_types_are_given_only_to_models_that_use_them(tiny_wordpiece: Path, tmp_path: Path) -> None:
    typed = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    tokenizer = AutoTokenizer.from_pretrained(tiny_wordpiece, **typed)
    for types in (1, 2):
        folder = tmp_path / f"types{types}"
        tokenizer.save_pretrained(folder)
        size, positions = len(tokenizer), {"max_position_embeddings": 66, "pad_token_id": 0}
        RobertaConfig(vocab_size=size, type_vocab_size=types, **positions).save_pretrained(folder)

        loaded = encoding.load_tokenizer(folder, tokenize(), lambda: iter([]))

        schema = encoding.Encoder(loaded, TARGET, tokenize()).tables["train"]
        assert ("token_type_ids" in schema.names) == (types == 2)
        # Whoever loads the exported tokenizer gets what the model takes.
        loaded.save_pretrained(tmp_path / "saved")
        assert ("token_type_ids" in AutoTokenizer.from_pretrained(tmp_path / "saved")("a", "b")) == (types == 2)


def test_a_stride_without_room_is_refused_with_its_key(tiny_wordpiece: Path) -> None:
    with pytest.raises(UserError, match=r"tokenize\.stride: 8 leaves windows beside a question of 5 tokens no room"):
        encoding.Encoder(load(tiny_wordpiece), TARGET, tokenize(16, 8, 5))
    with pytest.raises(ValueError, match="max_question_length 64 and stride 60 leave windows of max_length 128"):
        Tokenize(engine="local", num_proc=1, max_length=128, stride=60, max_question_length=64, limit=None)


def test_the_target_says_if_train_has_unanswerable_questions() -> None:
    answered, unanswered = table(("q", "c", [("c", 0)])), table(("q", "c", []))

    assert encoding.target(iter([answered, answered]), tokenize()) == {"unanswerable": False}
    assert encoding.target(iter([answered, unanswered]), tokenize()) == {"unanswerable": True}


# --- real corpora ---------------------------------------------------------------------------------------------------


def read(path: Path) -> pa.Table:
    how = Corpus.model_construct(answer_mismatch="refuse")
    counts = {"train": corpus.Counts()}
    records = readers.read(path.parent, [path], SquadReader(format="squad"))
    rows = [row for record in records for _, row in corpus.rows("train", record, how, counts)]
    return pa.Table.from_pylist(rows, corpus.SCHEMA)


def decoded(tokenizer: Any, examples: pa.Table) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Return (answer, text of its tokens) of each example, and the counts of encoding."""
    encoder = encoding.Encoder(tokenizer, TARGET, tokenize(384, 128, 64))
    counts: dict[str, int] = {}
    found: dict[int, str] = {}
    contexts, answers = examples["context"].to_pylist(), examples["answers"].to_pylist()
    for features, of_part in encoder.encode_table("train", iter([(np.arange(len(examples)), examples)])):
        counts = {name: counts.get(name, 0) + count for name, count in of_part.items()}
        for feature in features.to_pylist():
            if feature["start_positions"] != NULL_POSITION:
                start = feature["starts"][feature["start_positions"] - feature["context_start"]]
                end = feature["ends"][feature["end_positions"] - feature["context_start"]]
                found[feature["example"]] = contexts[feature["example"]][start:end]
    return [(answers[example][0]["text"], text) for example, text in found.items()], counts


def test_every_answer_of_squad_is_decoded_but_for_parts_of_words() -> None:
    examples = read(real("squad_v1.1_part/squad_v1.1_part_train.json"))

    pairs, counts = decoded(AutoTokenizer.from_pretrained(real("tokenizers/bert_uncased_tiny")), examples)

    assert (len(pairs), counts["answers_in_no_window"], counts["answers_within_tokens"]) == (3939, 0, 17)
    wider = [pair for pair in pairs if pair[0] != pair[1]]
    # The annotators marked 15 in 2015, four in fourth: no span of subwords is that.
    assert len(wider) == 17 and ("15", "2015") in wider and all(answer in text for answer, text in wider)


def test_every_answer_of_korquad_is_decoded_but_for_particles() -> None:
    examples = read(real("korquad1/KorQuAD_v1.0_dev.json"))
    vocabulary = real("tokenizers/koelectra_v1") / "vocab.txt"

    pairs, counts = decoded(BertTokenizer(vocab=str(vocabulary), do_lower_case=False), examples)

    assert (len(pairs), counts["answers_in_no_window"], counts["answers_within_tokens"]) == (5774, 0, 1649)
    wider = [pair for pair in pairs if pair[0].strip() != pair[1]]
    # This vocabulary has subwords such as ##경을: the end of a name with its particle.
    assert len(wider) == 1649 and ("임수경", "임수경을") in wider
    assert all(answer.strip() in text for answer, text in wider)


def test_windows_of_real_pairs_are_the_librarys() -> None:
    examples = read(real("squad_v1.1_part/squad_v1.1_part_dev.json"))[:150]
    tokenizer = AutoTokenizer.from_pretrained(real("tokenizers/bert_uncased_tiny"))
    how = tokenize(128, 32, 64)

    found = encode(tokenizer, examples, how)

    pairs = zip(examples["question"].to_pylist(), examples["context"].to_pylist(), strict=True)
    expected = [feature for pair in pairs for feature in reference(tokenizer, *pair, how)]
    names = ("input_ids", "token_type_ids", "context_start")
    assert [[one[name] for name in names] for one in found] == [[one[name] for name in names] for one in expected]
