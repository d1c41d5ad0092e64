"""Files of the other tasks: tags, spans, questions, queries and documents, conversations."""

import json

from catalogue.case import Case, Changes, Content, lines

SENTENCES = b"".join(b"Ada%d\tB-PER\nsat\tO\n\n" % n for n in range(20))
CONLL = {
    "format": "conll",
    "separator": "\t",
    "token_column": 0,
    "label_column": 1,
    "comment": None,
    "encoding": "utf-8",
}
WORD = "1\tword\t_\tNOUN\t_\t_\t_\t_\t_\t_\n"
CONLLU = {"format": "conllu", "label": "upos", "encoding": "utf-8"}
RULES = {
    "words": "unicode",
    "units": "characters",
    "blanks": "refuse",
    "inside_words": "refuse",
    "overlapping": "refuse",
    "empty": "refuse",
}
SPANS = {"format": "spans", "spans": RULES, "encoding": "utf-8"}
DOCCANO = {"format": "doccano", "spans": RULES, "encoding": "utf-8"}
STUDIO = {
    "format": "label_studio",
    "text": "text",
    "take": "annotations",
    "several": "refuse",
    "spans": RULES,
    "encoding": "utf-8",
}
PRODIGY = {"format": "prodigy", "spans": RULES, "encoding": "utf-8"}
BRAT = {"format": "brat", "discontinuous": "refuse", "spans": RULES, "encoding": "utf-8"}
BRATS: Changes = {"corpus.reader": BRAT, "corpus.splits.train": "*.txt"}
SQUAD = {"format": "squad"}
BEIR = {"format": "beir", "documents": "corpus.jsonl", "queries": "queries.jsonl"}
TAGGING, ASKING, FINDING, WRITING = "token_classification", "question_answering", "retrieval", "text_generation"

Made = tuple[dict[str, Content], Changes]


def of(file: str, content: Content, reader: Changes, **changes: object) -> Made:
    return {file: content}, {"corpus.reader": reader, "corpus.splits.train": file, **changes}


def conll(content: Content, **tags: object) -> Made:
    return of("a.conll", content, CONLL, **{f"corpus.tags.{key}": value for key, value in tags.items()})


def conllu(content: str) -> Made:
    made = ("".join(f"{WORD}\n" for _ in range(20)) + content).encode()
    return of("a.conllu", made, CONLLU, **{"corpus.tags.scheme": "none", "train.best_metric": "accuracy"})


TWENTY_SPANS = [
    {"text": f"Ada{n} sat", "spans": [{"start": 0, "end": 4 if n < 10 else 5, "label": "PER"}]} for n in range(20)
]


def spans(*given: object) -> Made:
    return of("a.jsonl", lines(*TWENTY_SPANS, *given), SPANS)


def span(start: object, end: object, label: object = "PER", text: str = "Ada sat here") -> Made:
    return spans({"text": text, "spans": [{"start": start, "end": end, "label": label}]})


def questions(*given: object, paragraphs: int = 20) -> Made:
    good = [
        {
            "context": f"Ada{n} sat",
            "qas": [{"id": str(n), "question": "who?", "answers": [{"text": "Ada", "answer_start": 0}]}],
        }
        for n in range(paragraphs)
    ]
    data = {"data": [{"title": "t", "paragraphs": [*good, *given]}]}
    return of("a.json", json.dumps(data).encode(), SQUAD, **{"corpus.answer_mismatch": "refuse"})


def question(context: object = "Ada sat", **changes: object) -> Made:
    asked = {"id": "x", "question": "who?", "answers": [{"text": "Ada", "answer_start": 0}]} | changes
    return questions({"context": context, "qas": [asked]})


DOCUMENTS = [{"_id": f"d{n}", "title": "", "text": f"document number {n}"} for n in range(20)]
QUERIES = [{"_id": f"q{n}", "text": f"query number {n}"} for n in range(20)]
QRELS = "query-id\tcorpus-id\tscore\n" + "".join(f"q{n}\td{n}\t1\n" for n in range(20))


def beir(qrels: str = QRELS, documents: object = DOCUMENTS, queries: object = QUERIES) -> Made:
    files: dict[str, Content] = {
        "corpus.jsonl": lines(*documents),  # type: ignore[misc]
        "queries.jsonl": lines(*queries),  # type: ignore[misc]
        "train.tsv": qrels.encode(),
    }
    changes = {"corpus.reader": BEIR, "corpus.splits.train": "train.tsv", "corpus.splits.documents": "corpus.jsonl"}
    return files, changes


CHAT = {"format": "jsonl", "columns": {"messages": "messages"}, "encoding": "utf-8"}
TURNS = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]


def chat(*conversations: object, bad: str = "refuse") -> Made:
    content = lines(*({"messages": TURNS} for _ in range(20)), *({"messages": one} for one in conversations))
    return of(
        "a.jsonl",
        content,
        CHAT,
        **{
            "corpus.bad_conversations": bad,
            "tokenize.template": None,
            "tokenize.chat": {
                "template": "{% for m in messages %}{{ m.content }}{% endfor %}",
                "bad_conversations": "refuse",
            },
        },
    )


CASES = [
    # --- tags ---
    Case(
        "conll: nothing",
        *conll(b""),
        task=TAGGING,
        says="splits.validation: too few examples (0) in train's file to give this split any",
    ),
    Case(
        "conll: blank lines alone",
        *conll(b"\n\n\n"),
        task=TAGGING,
        says="splits.validation: too few examples (0) in train's file to give this split any",
    ),
    Case(
        "conll: one column",
        *conll(SENTENCES + b"word\n"),
        task=TAGGING,
        says="a.conll:61: 1 column, label_column 1 needs at least 2: 'word'",
    ),
    Case(
        "conll: blanks in place of tabs",
        *conll(SENTENCES.replace(b"\t", b" ")),
        task=TAGGING,
        says="a.conll:1: 1 column, label_column 1 needs at least 2: 'Ada0 B-PER'",
    ),
    Case(
        "conll: no tag",
        *conll(SENTENCES + b"word\t\n"),
        task=TAGGING,
        says="a.conll:61: example '20': label 0 is ''; expected O, B-TYPE or I-TYPE in the scheme iob2",
    ),
    Case(
        "conll: no token",
        *conll(SENTENCES + b"\tO\n"),
        task=TAGGING,
        says="warning: validation: tokens without a character, which no model sees: 1",
        ends_well=True,
    ),
    Case(
        "conll: a token of a no-break space",
        *conll(SENTENCES + "\u00a0\tO\n".encode()),
        task=TAGGING,
        says="train 13 sentences, 26 tokens, 1 entity types",
        ends_well=True,
    ),
    Case(
        "conll: a token of a zero-width space",
        *conll(SENTENCES + "\u200b\tO\n".encode()),
        task=TAGGING,
        says="train 13 sentences, 26 tokens, 1 entity types",
        ends_well=True,
    ),
    Case(
        "conll: a tag of another scheme",
        *conll(SENTENCES + b"word\tU-PER\n"),
        task=TAGGING,
        says="a.conll:61: example '20': label 0 is 'U-PER'; expected O, B-TYPE or I-TYPE in the scheme iob2",
    ),
    Case(
        "conll: a tag without a type",
        *conll(SENTENCES + b"word\tB-\n"),
        task=TAGGING,
        says="a.conll:61: example '20': label 0 is 'B-'; expected O, B-TYPE or I-TYPE in the scheme iob2",
    ),
    Case(
        "conll: a lower-case tag",
        *conll(SENTENCES + b"word\to\n"),
        task=TAGGING,
        says="a.conll:61: example '20': label 0 is 'o'; expected O, B-TYPE or I-TYPE in the scheme iob2",
    ),
    Case(
        "conll: an I without a B",
        *conll(SENTENCES + b"word\tI-PER\n"),
        task=TAGGING,
        says="a.conll:61: example '20': label 0 is 'I-PER' in ['I-PER'], impossible in the scheme iob2",
    ),
    Case(
        "conll: an I of another type",
        *conll(SENTENCES + b"word\tB-PER\nword\tI-LOC\n"),
        task=TAGGING,
        says="a.conll:61: example '20': label 1 is 'I-LOC' in ['B-PER', 'I-LOC'], impossible in the scheme iob2",
    ),
    Case(
        "conll: a tag with a no-break space",
        *conll(SENTENCES + "word\tB-PER\u00a0\n".encode()),
        task=TAGGING,
        says="validation: labels that train lacks and no model will predict: 'B-PER\\xa0' (1)",
        ends_well=True,
    ),
    Case(
        "conll: outside alone",
        *conll(SENTENCES.replace(b"B-PER", b"O")),
        task=TAGGING,
        says="train: all tokens have one label, O: there is nothing to learn",
        ends_well=True,
    ),
    Case(
        "conll: a sentence of 100,000 words",
        *conll(SENTENCES + b"w\tO\n" * 100_000),
        task=TAGGING,
        says="train 13 sentences, 26 tokens, 1 entity types",
        ends_well=True,
    ),
    Case(
        "conll: a word of 1 MB",
        *conll(SENTENCES + b"w" * (1 << 20) + b"\tO\n"),
        task=TAGGING,
        says="train 13 sentences, 26 tokens, 1 entity types",
        ends_well=True,
    ),
    Case(
        "conll: label and token are one column",
        *of("a.conll", SENTENCES, CONLL | {"label_column": -2}),
        task=TAGGING,
        says="a.conll:1: token_column and label_column are the same of 2 columns: 'Ada0\\tB-PER'",
    ),
    Case(
        "conll: a column beyond the line",
        *of("a.conll", SENTENCES, CONLL | {"label_column": 5}),
        task=TAGGING,
        says="a.conll:1: 2 columns, label_column 5 needs at least 6: 'Ada0\\tB-PER'",
    ),
    Case(
        "conll: it is CoNLL-U",
        *of("a.conll", (f"# sent_id = 1\n{WORD}\n" * 20).encode(), CONLL),
        task=TAGGING,
        says="a.conll:1: 1 column, label_column 1 needs at least 2: '# sent_id = 1'",
    ),
    Case(
        "conllu: nine columns",
        *conllu("1\tword\t_\tNOUN\t_\t_\t_\t_\t_\n"),
        task=TAGGING,
        says="a.conllu:41: 9 columns; CoNLL-U has 10, with tabs between them",
    ),
    Case(
        "conllu: blanks in place of tabs",
        *conllu(WORD.replace("\t", " ")),
        task=TAGGING,
        says="a.conllu:41: 1 columns; CoNLL-U has 10, with tabs between them",
    ),
    Case(
        "conllu: an id of a fraction",
        *conllu(WORD.replace("1\t", "1.0\t")),
        task=TAGGING,
        says="a.conllu:41: the id is '1.0'; expected a word's as 1, a range's as 1-2 or an empty",
    ),
    Case(
        "conllu: an id of Arabic digits",
        *conllu(WORD.replace("1\t", "١\t")),
        task=TAGGING,
        says="a.conllu:41: the id is '١'; expected a word's as 1",
    ),
    Case(
        "conllu: no id",
        *conllu(WORD.replace("1\t", "\t")),
        task=TAGGING,
        says="a.conllu:41: the id is ''; expected a word's as 1",
    ),
    Case(
        "conllu: no form",
        *conllu(WORD.replace("word", "")),
        task=TAGGING,
        says="tokens without a character, which no model sees: 1",
        ends_well=True,
    ),
    Case(
        "conllu: a sent_id twice",
        *conllu(f"# sent_id = a\n{WORD}\n# sent_id = a\n{WORD}"),
        task=TAGGING,
        says="a.conllu:44: the id 'a' occurs a second time here; expected unique ids within a file",
    ),
    Case(
        "conllu: a range alone",
        *conllu("1-2\tword\t_\t_\t_\t_\t_\t_\t_\t_\n"),
        task=TAGGING,
        says="examples without tokens, left out: 1",
        ends_well=True,
    ),
    # --- spans ---
    Case(
        "spans: an end beyond the text",
        *span(0, 99),
        task=TAGGING,
        says="a.jsonl:21: example '20': the span [0, 99] PER is not in its text, of 12 in characters; expected 0 <= start <= end",
    ),
    Case(
        "spans: a start below 0",
        *span(-1, 3),
        task=TAGGING,
        says="a.jsonl:21: example '20': the span [-1, 3] PER is not in its text, of 12 in characters; expected 0 <= start <= end",
    ),
    Case(
        "spans: an end before its start",
        *span(5, 2),
        task=TAGGING,
        says="a.jsonl:21: example '20': the span [5, 2] PER is not in its text, of 12 in characters; expected 0 <= start <= end",
    ),
    Case(
        "spans: nothing between",
        *span(3, 3),
        task=TAGGING,
        says="a.jsonl:21: example '20': '' (PER): a span without text; expected none, or another reader.spans.empty than refuse",
    ),
    Case(
        "spans: a blank alone",
        *span(3, 4),
        task=TAGGING,
        says="a.jsonl:21: example '20': ' ' (PER): a span without text; expected none, or another reader.spans.empty than refuse",
    ),
    Case(
        "spans: a blank at the end",
        *span(0, 4),
        task=TAGGING,
        says="a.jsonl:21: example '20': 'Ada ' (PER): a span with white space around it; expected none, or another reader.spans.blanks",
    ),
    Case(
        "spans: half a word",
        *span(0, 2),
        task=TAGGING,
        says="a.jsonl:21: example '20': 'Ad' (PER): a span that does not end at words; expected none, or another reader.spans.inside_w",
    ),
    Case(
        "spans: a fraction",
        *span(0.5, 3),
        task=TAGGING,
        says="a.jsonl:21: spans[0]: start is 0.5; expected a whole number",
    ),
    Case(
        "spans: a text as an offset",
        *span("0", 3),
        task=TAGGING,
        says="a.jsonl:21: spans[0]: start is '0'; expected a whole number",
    ),
    Case(
        "spans: true as an offset",
        *span(True, 3),
        task=TAGGING,
        says="a.jsonl:21: spans[0]: start is True; expected a whole number",
    ),
    Case(
        "spans: an offset beyond 64 bits",
        *span(0, 2**70),
        task=TAGGING,
        says="a.jsonl:21: example '20': the span [0, 1180591620717411303424] PER is not in its text, of 12 in characters; expected 0 <",
    ),
    Case("spans: no label", *span(0, 3, ""), task=TAGGING, says="a.jsonl:21: spans[0]: label is ''; expected a name"),
    Case(
        "spans: a label that is null",
        *span(0, 3, None),
        task=TAGGING,
        says="a.jsonl:21: spans[0]: label is None; expected a name",
    ),
    Case(
        "spans: a label of white space",
        *span(0, 3, " \t"),
        task=TAGGING,
        says="a.jsonl:21: spans[0]: label is ' \\t'; expected a name",
    ),
    Case(
        "spans: a label with a line end",
        *span(0, 3, "PER\nLOC"),
        task=TAGGING,
        says="no model will predict: 'B-PER\\nLOC' (1)",
        ends_well=True,
    ),
    Case(
        "spans: overlapping",
        *spans(
            {"text": "Ada sat", "spans": [{"start": 0, "end": 3, "label": "X"}, {"start": 0, "end": 7, "label": "Y"}]}
        ),
        task=TAGGING,
        says="a.jsonl:21: example '20': 'Ada' (X) and 'Ada sat' (Y): spans that share words; expected none, or another reader.spans.ov",
    ),
    Case(
        "spans: no list",
        *spans({"text": "Ada", "spans": {"start": 0}}),
        task=TAGGING,
        says="a.jsonl:21: spans is {'start': 0}; expected a list",
    ),
    Case(
        "spans: no text",
        *spans({"spans": []}),
        task=TAGGING,
        says="a.jsonl:21: no key 'text'; the keys there are 'spans'",
    ),
    Case(
        "spans: an empty text",
        *spans({"text": "", "spans": []}),
        task=TAGGING,
        says="warning: validation: examples without tokens, left out: 1",
        ends_well=True,
    ),
    Case(
        "spans: an empty text with a span",
        *spans({"text": "", "spans": [{"start": 0, "end": 1, "label": "X"}]}),
        task=TAGGING,
        says="a.jsonl:21: example '20': the span [0, 1] X is not in its text, of 0 in characters; expected 0 <= start <= end",
    ),
    Case(
        "doccano: no JSON",
        *of("a.jsonl", b"Ada sat\n", DOCCANO),
        task=TAGGING,
        says="a.jsonl:1: not JSON: no value, such as a text in double quotes, column 1; expected one object per line",
    ),
    Case(
        "doccano: labels of a text classification",
        *of("a.jsonl", lines({"id": 1, "text": "Ada", "label": ["x"]}), DOCCANO),
        task=TAGGING,
        says="a.jsonl:1: label[0] is 'x'; expected [start, end, label]",
    ),
    Case(
        "doccano: a span of four values",
        *of("a.jsonl", lines({"id": 1, "text": "Ada", "label": [[0, 1, "x", 2]]}), DOCCANO),
        task=TAGGING,
        says="a.jsonl:1: label[0] is [0, 1, 'x', 2]; expected [start, end, label]",
    ),
    Case(
        "label studio: another key of the text",
        *of("a.json", b'[{"id": 1, "data": {"body": "Ada"}, "annotations": []}]', STUDIO),
        task=TAGGING,
        says="a.json, item 0: no key 'text'; the keys there are 'body'; reader.text names the one that holds the text",
    ),
    Case(
        "label studio: invalid annotations",
        *of("a.json", b'[{"id": 1, "data": {"text": "Ada"}, "annotations": 7}]', STUDIO),
        task=TAGGING,
        says="a.json, item 0: annotations is 7; expected a list",
    ),
    Case(
        "label studio: an empty file",
        *of("a.json", b"[]", STUDIO),
        task=TAGGING,
        says="splits.validation: too few examples (0) in train's file to give this split any",
    ),
    Case(
        "label studio: two annotations of one task",
        *of(
            "a.json",
            json.dumps([{"id": 1, "data": {"text": "Ada"}, "annotations": [{"result": []}, {"result": []}]}]).encode(),
            STUDIO,
        ),
        task=TAGGING,
        says="a.json, item 0: 2 annotations; expected one, or reader.several: first or last",
    ),
    Case(
        "prodigy: nothing accepted",
        *of("a.jsonl", lines({"text": "Ada", "answer": "reject", "spans": []}), PRODIGY),
        task=TAGGING,
        says="splits.validation: too few examples (1) in train's file to give this split any",
    ),
    Case(
        "brat: no .ann beside the .txt",
        *of("a.txt", b"Ada", BRAT),
        task=TAGGING,
        says="a.txt: there is no a.ann; expected it beside, empty if there are no spans",
    ),
    Case(
        "brat: an invalid line",
        {"a.txt": b"Ada", "a.ann": b"T1 PER 0 3 Ada\n"},
        BRATS,
        task=TAGGING,
        says="a.ann:1: 'T1 PER 0 3 Ada'; expected an id, a tab, 'LABEL START END', a tab and the text",
    ),
    Case(
        "brat: a text that its offsets do not have",
        {f"{n}.txt": b"Ada" for n in range(9)} | {f"{n}.ann": b"T1\tPER 0 2\tAda\n" for n in range(9)},
        BRATS,
        task=TAGGING,
        says="0.txt: example '0': the span [0, 2] PER is 'Ad' in the text, and 'Ada' in the annotation; expected the same",
    ),
    Case(
        "brat: a span in two parts",
        {"a.txt": b"Ada and Bob sat", "a.ann": b"T1\tPER 0 3;8 11\tAda Bob\n"},
        BRATS,
        task=TAGGING,
        says="a.ann:1: 'Ada Bob' (PER) is in parts; expected none, or reader.discontinuous: cover or drop",
    ),
    # --- questions ---
    Case("squad: no data", *of("a.json", b"{}", SQUAD), task=ASKING, says="a.json: no 'data'; the keys there are none"),
    Case(
        "squad: an array", *of("a.json", b"[]", SQUAD), task=ASKING, says="a.json: list; expected an object with 'data'"
    ),
    Case(
        "squad: no questions",
        *questions(paragraphs=0),
        task=ASKING,
        says="splits.validation: too few examples (0) in train's file to give this split any",
    ),
    Case(
        "squad: an answer elsewhere",
        *question(answers=[{"text": "sat", "answer_start": 0}]),
        task=ASKING,
        says="a.json: data[0].paragraphs[20].qas[0]: example 'x': the answer 'sat' is not in its context at character 0: 'Ada'",
    ),
    Case(
        "squad: an answer beyond the context",
        *question(answers=[{"text": "Ada", "answer_start": 100}]),
        task=ASKING,
        says="a.json: data[0].paragraphs[20].qas[0]: example 'x': the answer 'Ada' is not in its context at character 100: '';",
    ),
    Case(
        "squad: a start below 0",
        *question(answers=[{"text": "Ada", "answer_start": -3}]),
        task=ASKING,
        says="a.json: data[0].paragraphs[20].qas[0]: example 'x': the answer 'Ada' is not in its context at character -3: 'Ada",
    ),
    Case(
        "squad: a start beyond 64 bits",
        *question(answers=[{"text": "Ada", "answer_start": 2**70}]),
        task=ASKING,
        says="a.json: data[0].paragraphs[20].qas[0]: example 'x': the answer 'Ada' is not in its context at character 11805916",
    ),
    Case(
        "squad: a start that is a fraction",
        *question(answers=[{"text": "Ada", "answer_start": 0.0}]),
        task=ASKING,
        says="a.json: data[0].paragraphs[20].qas[0].answers[0]: answer_start is 0.0; expected a whole number",
    ),
    Case(
        "squad: a start that is true",
        *question(answers=[{"text": "da", "answer_start": True}]),
        task=ASKING,
        says="a.json: data[0].paragraphs[20].qas[0].answers[0]: answer_start is True; expected a whole number",
    ),
    Case(
        "squad: an empty answer",
        *question(answers=[{"text": "", "answer_start": 0}]),
        task=ASKING,
        says="a.json: data[0].paragraphs[20].qas[0]: example 'x': the answer '' is not in its context at character 0: ''; expe",
    ),
    Case(
        "squad: impossible, with an answer",
        *question(is_impossible=True),
        task=ASKING,
        says="answers of questions that are marked as impossible, ignored: 1",
        ends_well=True,
    ),
    Case(
        "squad: impossible as a text",
        *question(is_impossible="true"),
        task=ASKING,
        says="a.json: data[0].paragraphs[20].qas[0]: is_impossible is 'true'; expected true or false",
    ),
    Case(
        "squad: no answers",
        *question(answers=None),
        task=ASKING,
        says="a.json: data[0].paragraphs[20].qas[0]: answers is None; expected a list",
    ),
    Case(
        "squad: an empty question",
        *question(question=""),
        task=ASKING,
        says="warning: validation: blank questions or contexts, left out: 1",
        ends_well=True,
    ),
    Case(
        "squad: a question of white space",
        *question(question=" \n"),
        task=ASKING,
        says="warning: validation: blank questions or contexts, left out: 1",
        ends_well=True,
    ),
    Case(
        "squad: an empty context",
        *question(context="", answers=[]),
        task=ASKING,
        says="warning: validation: blank questions or contexts, left out: 1",
        ends_well=True,
    ),
    Case(
        "squad: a context that is null",
        *question(context=None),
        task=ASKING,
        says="a.json: data[0].paragraphs[20]: context is None; expected a string",
    ),
    Case(
        "squad: an id twice",
        *question(id="3"),
        task=ASKING,
        says="a.json: data[0].paragraphs[20].qas[0]: the id '3' occurs a second time here; expected unique ids within a file",
    ),
    Case(
        "squad: an id that is null",
        *question(id=None),
        task=ASKING,
        says="a.json: data[0].paragraphs[20].qas[0]: the id is None; expected a string or a whole number",
    ),
    # --- queries and documents ---
    Case(
        "beir: no header",
        *beir(QRELS.split("\n", 1)[1]),
        task=FINDING,
        says="train.tsv:1: 'q0\\td0\\t1'; expected a header: query-id, corpus-id, score",
    ),
    Case(
        "beir: two columns",
        *beir(QRELS + "q1\td1\n"),
        task=FINDING,
        says="train.tsv:22: 2 columns; expected query-id, corpus-id and score, tabs between them",
    ),
    Case(
        "beir: blanks in place of tabs",
        *beir(QRELS.replace("\t", " ")),
        task=FINDING,
        says="train.tsv:1: 1 columns; expected query-id, corpus-id and score, tabs between them",
    ),
    Case(
        "beir: a score of 1.5",
        *beir(QRELS + "q1\td2\t1.5\n"),
        task=FINDING,
        says="train.tsv:22: the score is '1.5'; expected a whole number",
    ),
    Case(
        "beir: a score of 1_000",
        *beir(QRELS + "q1\td2\t1_000\n"),
        task=FINDING,
        says="train.tsv:22: the score is '1_000'; expected a whole number",
    ),
    Case(
        "beir: a score in Arabic digits",
        *beir(QRELS + "q1\td2\t٢\n"),
        task=FINDING,
        says="train.tsv:22: the score is '٢'; expected a whole number",
    ),
    Case(
        "beir: a score below 0",
        *beir(QRELS + "q1\td2\t-1\n"),
        task=FINDING,
        says="train 12 queries, 12 relevant documents",
        ends_well=True,
    ),
    Case(
        "beir: a score beyond 64 bits",
        *beir(QRELS + "q1\td2\t99999999999999999999\n"),
        task=FINDING,
        says="train.tsv:22: the score is '99999999999999999999'; expected a whole number",
    ),
    Case(
        "beir: a score of 5,000 digits",
        *beir(QRELS + "q1\td2\t" + "9" * 5000 + "\n"),
        task=FINDING,
        says="train.tsv:22: the score is '99999999999999999999999999999999999999999999999999999999999; expected a whole number",
    ),
    Case(
        "beir: two scores of one pair",
        *beir(QRELS + "q1\td1\t2\n"),
        task=FINDING,
        says="train.tsv:22: query 'q1' and document 'd1' have a different score in an earlier line",
    ),
    Case(
        "beir: a query that is not there",
        *beir(QRELS + "q99\td1\t1\n"),
        task=FINDING,
        says="train.tsv:22: there is no query 'q99' in queries.jsonl; expected every id of the qrels there",
    ),
    Case(
        "beir: a document that is not there",
        *beir(QRELS + "q1\td99\t1\n"),
        task=FINDING,
        says="train.tsv:3: query 'q1': there is no document 'd99' in corpus.jsonl; expected every id of the qrels there",
    ),
    Case(
        "beir: a document twice",
        *beir(documents=[*DOCUMENTS, DOCUMENTS[0]]),
        task=FINDING,
        says="corpus.jsonl:21: the id 'd0' occurs a second time here; expected unique ids",
    ),
    Case(
        "beir: a document without an id",
        *beir(documents=[{"text": "a"}]),
        task=FINDING,
        says="corpus.jsonl:1: no key '_id'; the keys there are 'text'",
    ),
    Case(
        "beir: a document that is null",
        *beir(documents=[*DOCUMENTS, {"_id": "x", "text": None}]),
        task=FINDING,
        says="corpus.jsonl:21: text is None; expected a string",
    ),
    Case(
        "beir: an empty document",
        *beir(documents=[*DOCUMENTS, {"_id": "x", "text": ""}]),
        task=FINDING,
        says="warning: documents: without text, found by no words: 1",
        ends_well=True,
    ),
    Case(
        "beir: no queries",
        *beir(queries=[]),
        task=FINDING,
        says="train.tsv:2: there is no query 'q0' in queries.jsonl; expected every id of the qrels there",
    ),
    Case(
        "beir: an empty query",
        *beir(queries=[*QUERIES[1:], {"_id": "q0", "text": ""}]),
        task=FINDING,
        says="warning: train: queries without text, left out: 1",
        ends_well=True,
    ),
    Case(
        "beir: judgements alone",
        *beir("query-id\tcorpus-id\tscore\n"),
        task=FINDING,
        says="splits.validation: too few examples (0) in train's file to give this split any",
    ),
    Case(
        "beir: nothing relevant",
        *beir(QRELS.replace("\t1\n", "\t0\n")),
        task=FINDING,
        says="splits.train: every example of it is left out, as empty or unusable; expected at least one",
    ),
    # --- conversations ---
    Case(
        "chat: no turns",
        *chat([]),
        task=WRITING,
        says="a.jsonl:21: example '20': [] is no conversation; expected a list of messages with role and content; or corpus.bad_conver",
    ),
    Case(
        "chat: an unknown role",
        *chat([{"role": "robot", "content": "x"}]),
        task=WRITING,
        says="a.jsonl:21: example '20': messages[0] has the role 'robot'; expected one of system, user, human, assistant, gpt, tool; o",
    ),
    Case(
        "chat: no content",
        *chat([{"role": "user"}]),
        task=WRITING,
        says="a.jsonl:21: example '20': messages[0] has the keys 'role'; expected role and content, or from and value; or corpus.bad_c",
    ),
    Case(
        "chat: a content that is null",
        *chat([{"role": "user", "content": None}, TURNS[1]]),
        task=WRITING,
        says="a.jsonl:21: example '20': the content of messages[0] is empty; expected text; or corpus.bad_conversations: leave_out",
    ),
    Case(
        "chat: no assistant",
        *chat([TURNS[0]]),
        task=WRITING,
        says="a.jsonl:21: example '20': no turn of the assistant; expected one to learn from; or corpus.bad_conversations: leave_out",
    ),
    Case(
        "chat: turns that are texts",
        *chat(["hello", "hi"]),
        task=WRITING,
        says="a.jsonl:21: example '20': messages[0] is 'hello'; expected an object with role and content; or corpus.bad_conversations:",
    ),
    Case(
        "chat: no list",
        *chat("hello"),
        task=WRITING,
        says="a.jsonl:21: example '20': 'hello' is no conversation; expected a list of messages with role and content; or corpus.bad_c",
    ),
    Case(
        "chat: bad ones left out",
        *chat([TURNS[0]], bad="leave_out"),
        task=WRITING,
        says="warning: validation: conversations left out: 1, the first: a.jsonl:21: example '20': no turn of the assistant; expected ",
        ends_well=True,
    ),
    Case(
        "chat: a key of 5,000 letters",
        *chat([{"x" * 5000: "a"}]),
        task=WRITING,
        says="a.jsonl:21: example '20': messages[0] has the keys 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...'; expected role and",
    ),
    Case(
        "brat: an offset of 5,000 digits",
        {"a.txt": b"Ada sat", "a.ann": b"T1\tPER 0 " + b"9" * 5000 + b"\tAda\n"},
        BRATS,
        task=TAGGING,
        says="expected an id, a tab, 'LABEL START END', a tab and the text",
    ),
    Case(
        "brat: an offset in Arabic digits",
        {"a.txt": b"Ada sat", "a.ann": "T1\tPER \u0660 3\tAda\n".encode()},
        BRATS,
        task=TAGGING,
        says="expected an id, a tab, 'LABEL START END', a tab and the text",
    ),
    Case(
        "prodigy: an answer with a line end",
        *of(
            "a.jsonl",
            lines(*TWENTY_SPANS, {"text": "Ada", "answer": "no\nerror: x"}),
            PRODIGY,
        ),
        task=TAGGING,
        says="'no\\nerror: x'",
        ends_well=True,
    ),
    Case(
        "slices: of conll without comments",
        *of("a.conll", SENTENCES, CONLL, **{"corpus.slices": ["domain"]}),
        task=TAGGING,
        says="corpus.slices: in conll, slices are in comments, such as # domain=news; expected reader.comment: '#', or no slices",
    ),
    Case(
        "slices: of brat",
        *of("a.txt", b"Ada", BRAT, **{"corpus.slices": ["domain"]}),
        task=TAGGING,
        says="corpus.slices: files of brat have no columns beside text and spans; expected no slices",
    ),
    Case(
        "slices: a sentence that does not say it",
        *of("a.conll", b"# domain=news\n" + SENTENCES, CONLL | {"comment": "#"}, **{"corpus.slices": ["domain"]}),
        task=TAGGING,
        says="a.conll:5: corpus.slices: no column 'domain'; the columns there are none",
    ),
    Case(
        "slices: a list",
        *of(
            "a.jsonl",
            lines(*({**one, "meta": {"page": [1]}} for one in TWENTY_SPANS)),
            SPANS,
            **{"corpus.slices": ["page"]},
        ),
        task=TAGGING,
        says="a.jsonl:1: corpus.slices: page is [1]; expected a single value",
    ),
]
