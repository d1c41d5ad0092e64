"""Recipes and params.yaml: invalid YAML, invalid values, and settings that contradict each other."""

from catalogue.case import Case


def setting(name: str, key: str, value: object, task: str = "text_classification", says: str = "") -> Case:
    return Case(f"recipe: {name}", {}, {key: value}, says, task)


CASES = [
    setting(
        "a fraction as a number of updates",
        "train.log_steps",
        0.5,
        says="recipes/text_classification/toy.yaml: train.log_steps: should be a valid integer, got 0.5",
    ),
    setting(
        "a text as a number",
        "train.lr",
        "3e-5",
        says="recipes/text_classification/toy.yaml: train.lr: should be a valid number, got '3e-5'",
    ),
    setting(
        "true as a number",
        "train.batch_size",
        True,
        says="recipes/text_classification/toy.yaml: train.batch_size: should be a valid integer, got True",
    ),
    setting(
        "NaN",
        "train.lr",
        float("nan"),
        says="recipes/text_classification/toy.yaml: train.lr: should be a finite number, got nan",
    ),
    setting(
        "infinity",
        "train.epochs",
        float("inf"),
        says="recipes/text_classification/toy.yaml: train.epochs: should be a finite number, got inf",
    ),
    setting(
        "below 0",
        "train.lr",
        -1.0,
        says="recipes/text_classification/toy.yaml: train.lr: should be greater than 0, got -1.0",
    ),
    setting(
        "0 epochs",
        "train.epochs",
        0.0,
        says="recipes/text_classification/toy.yaml: train.epochs: should be greater than 0, got 0.0",
    ),
    setting(
        "a batch of 0",
        "train.batch_size",
        0,
        says="recipes/text_classification/toy.yaml: train.batch_size: should be greater than or equal to 1, got 0",
    ),
    setting(
        "a number of 400 digits",
        "train.batch_size",
        10**400,
        says="recipes/text_classification/toy.yaml: not a recipe's YAML: a whole number of 2^63 or more; expected a smaller one, or a ",
    ),
    setting(
        "a batch beyond 64 bits",
        "train.batch_size",
        2**70,
        says="recipes/text_classification/toy.yaml: not a recipe's YAML: a whole number of 2^63 or more; expected a smaller one, or a ",
    ),
    setting(
        "a seed below 0",
        "corpus.splits.seed",
        -1,
        says="recipes/text_classification/toy.yaml: corpus.splits.seed: should be greater than or equal to 0, got -1",
    ),
    setting(
        "a seed beyond 64 bits",
        "corpus.splits.seed",
        2**70,
        says="recipes/text_classification/toy.yaml: not a recipe's YAML: a whole number of 2^63 or more; expected a smaller one, or a ",
    ),
    setting(
        "a list as a text",
        "corpus.name",
        ["a"],
        says="recipes/text_classification/toy.yaml: corpus.name: should be a valid string, got ['a']",
    ),
    setting(
        "an empty name",
        "corpus.name",
        "",
        says="recipes/text_classification/toy.yaml: corpus.name: should have at least 1 character, got ''",
    ),
    setting(
        "null where a value is needed",
        "train.engine",
        None,
        says="recipes/text_classification/toy.yaml: train.engine: should be 'trainer' or 'accelerate', got None",
    ),
    setting(
        "an unknown engine",
        "train.engine",
        "trainer2",
        says="recipes/text_classification/toy.yaml: train.engine: should be 'trainer' or 'accelerate', got 'trainer2'",
    ),
    setting(
        "an unknown metric",
        "train.best_metric",
        "bleu",
        says="recipes/text_classification/toy.yaml: train.best_metric: 'bleu' does not go with corpus.problem single_label; expected o",
    ),
    setting(
        "an unknown key",
        "train.momentum",
        0.9,
        says="recipes/text_classification/toy.yaml: train.momentum: unknown key",
    ),
    setting(
        "an unknown source",
        "corpus.source",
        {"kind": "ftp", "path": "x"},
        says="recipes/text_classification/toy.yaml: corpus.source: 'kind' is 'ftp'; expected 'package', 'file', 'archive', 'url', 'hub",
    ),
    setting(
        "a source without a kind",
        "corpus.source",
        {"path": "x"},
        says="recipes/text_classification/toy.yaml: corpus.source: 'kind' is missing; expected the key that says which form it has",
    ),
    setting(
        "an invalid hash",
        "corpus.source.sha256",
        "abc",
        says="recipes/text_classification/toy.yaml: corpus.source.sha256: 'abc'; expected a sha256, 64 of 0-9 and a-f",
    ),
    setting(
        "splits that leave nothing",
        "corpus.splits.validation",
        0.9,
        says="recipes/text_classification/toy.yaml: corpus.splits: validation and test leave nothing for train; expected fractions tha",
    ),
    setting(
        "a split of all",
        "corpus.splits.test",
        1.0,
        says="recipes/text_classification/toy.yaml: corpus.splits.test: should be a valid string, got 1.0; corpus.splits.test: should ",
    ),
    setting(
        "a split below 0",
        "corpus.splits.test",
        -0.1,
        says="recipes/text_classification/toy.yaml: corpus.splits.test: should be a valid string, got -0.1; corpus.splits.test: should",
    ),
    setting(
        "a split of NaN",
        "corpus.splits.test",
        float("nan"),
        says="recipes/text_classification/toy.yaml: corpus.splits.test: should be a valid string, got nan; corpus.splits.test: should ",
    ),
    setting(
        "stratified by an unknown column",
        "corpus.splits.stratify",
        "colour",
        says="recipes/text_classification/toy.yaml: corpus: splits.stratify: 'colour' is not one of reader.columns",
    ),
    setting(
        "grouped by an unknown column",
        "corpus.splits.group",
        "author",
        says="splits.group: toy.jsonl:1 has no column 'author'; the columns there are text, label",
    ),
    setting(
        "a split that no file is",
        "corpus.splits.test",
        "none.jsonl",
        says="file source corpus: nothing matches 'none.jsonl'; the files there: toy.jsonl",
    ),
    setting(
        "a split outside of the source",
        "corpus.splits.test",
        "../../secret",
        says="file source corpus: nothing matches '../../secret'; the files there: toy.jsonl",
    ),
    setting(
        "an absolute split",
        "corpus.splits.test",
        "/etc/passwd",
        says="file source corpus: nothing matches '/etc/passwd'; the files there: toy.jsonl",
    ),
    setting(
        "a reader that the task has not",
        "corpus.reader",
        {"format": "squad"},
        says="recipes/text_classification/toy.yaml: corpus.reader: 'format' is 'squad'; expected 'csv', 'jsonl', 'json', 'parquet', 't",
    ),
    setting(
        "an unknown format",
        "corpus.reader",
        {"format": "xlsx"},
        says="recipes/text_classification/toy.yaml: corpus.reader: 'format' is 'xlsx'; expected 'csv', 'jsonl', 'json', 'parquet', 'te",
    ),
    setting(
        "windows that do not advance",
        "tokenize.stride",
        10,
        says="recipes/text_classification/toy.yaml: tokenize: stride 10 leaves no room in max_length 10; expected less",
    ),
    setting(
        "a length of 0",
        "tokenize.max_length",
        0,
        says="recipes/text_classification/toy.yaml: tokenize.max_length: should be greater than or equal to 3, got 0",
    ),
    setting(
        "head and tail without a head",
        "tokenize.overflow",
        "head_tail",
        says="recipes/text_classification/toy.yaml: tokenize: head_tokens is None with overflow head_tail; expected a number",
    ),
    setting(
        "patience of 0",
        "train.patience",
        0,
        says="recipes/text_classification/toy.yaml: train.patience: should be greater than or equal to 1, got 0",
    ),
    setting(
        "warmup above 1",
        "train.warmup",
        1.5,
        says="recipes/text_classification/toy.yaml: train.warmup: should be less than 1, got 1.5",
    ),
    setting(
        "an unknown schedule",
        "train.schedule",
        "cosinus",
        says="recipes/text_classification/toy.yaml: train.schedule: should be 'linear', 'cosine' or 'constant_with_warmup', got 'cosin",
    ),
    setting(
        "a dropout of 1",
        "train.lora",
        {"rank": 2, "alpha": 4.0, "dropout": 1.0, "target_modules": None, "keep": False, "quantize": None},
        says="recipes/text_classification/toy.yaml: train.lora.dropout: should be less than 1, got 1.0",
    ),
    setting(
        "a rank of 0",
        "train.lora",
        {"rank": 0, "alpha": 4.0, "dropout": 0.0, "target_modules": None, "keep": False, "quantize": None},
        says="recipes/text_classification/toy.yaml: train.lora.rank: should be greater than or equal to 1, got 0",
    ),
    setting(
        "adapters and layers that thaw",
        "train.layer_decay",
        0.0,
        says="recipes/text_classification/toy.yaml: train.layer_decay: should be greater than 0, got 0.0",
    ),
    setting(
        "an unknown positive label",
        "evaluate.positive_label",
        7,
        says="recipes/text_classification/toy.yaml: evaluate.positive_label: should be a valid string, got 7",
    ),
    setting(
        "a threshold above 1",
        "evaluate.threshold",
        1.5,
        says="recipes/text_classification/toy.yaml: evaluate.threshold: should be less than 1, got 1.5",
    ),
    setting(
        "no bootstrap",
        "evaluate.bootstrap.samples",
        -1,
        says="recipes/text_classification/toy.yaml: evaluate.bootstrap.samples: should be greater than or equal to 100, got -1",
    ),
    setting(
        "a confidence of 1",
        "evaluate.bootstrap.confidence",
        1.0,
        says="recipes/text_classification/toy.yaml: evaluate.bootstrap.confidence: should be less than 1, got 1.0",
    ),
    setting(
        "text that DVC would resolve",
        "corpus.name",
        "a ${corpus}",
        says="recipes/text_classification/toy.yaml: corpus.name: `dvc exp run -S` would resolve ${ in it, or stop there; expected a te",
    ),
    setting(
        "a name of 100,000 letters",
        "corpus.name",
        "x" * 100_000,
        says="corpus.name: should have at most 200 characters",
    ),
    setting(
        "a license with a line end",
        "corpus.license",
        "MIT\nGPL",
        says="corpus.license: 'MIT\\nGPL'; expected text of one line, without control characters",
    ),
    setting(
        "an unknown scheme",
        "corpus.tags.scheme",
        "bio",
        "token_classification",
        says="recipes/token_classification/toy.yaml: corpus.tags.scheme: should be 'iob1', 'iob2', 'iobes', 'bilou', 'io' or 'none', g",
    ),
    setting(
        "more question than length",
        "tokenize.max_question_length",
        30,
        "question_answering",
        says="recipes/question_answering/toy.yaml: tokenize: max_question_length 30 and stride 2 leave windows of max_length 20 no roo",
    ),
    setting(
        "an unknown script",
        "evaluate.script",
        "squad3",
        "question_answering",
        says="recipes/question_answering/toy.yaml: evaluate.script: should be 'squad', 'squad2' or 'korquad', got 'squad3'",
    ),
    setting(
        "a mask probability of 0",
        "tokenize.mask_probability",
        0.0,
        "masked_lm",
        says="recipes/masked_lm/toy.yaml: tokenize.mask_probability: should be greater than 0, got 0.0",
    ),
    setting(
        "a mask probability above 1",
        "train.mask_probability",
        1.5,
        "masked_lm",
        says="recipes/masked_lm/toy.yaml: train.mask_probability: should be less than 1, got 1.5",
    ),
    setting(
        "a template without its column",
        "tokenize.template",
        "{question}",
        "text_generation",
        says="recipes/text_generation/toy.yaml: tokenize.template: '{question}' has {prompt} 0 times; expected it once",
    ),
    setting(
        "a template that reads attributes",
        "tokenize.template",
        "{prompt.__class__}",
        "text_generation",
        says="recipes/text_generation/toy.yaml: tokenize.template: '{prompt.__class__}' has {prompt} 0 times; expected it once",
    ),
    setting(
        "a template with an open brace",
        "tokenize.template",
        "{prompt",
        "text_generation",
        says="recipes/text_generation/toy.yaml: tokenize.template: '{prompt' has {prompt} 0 times; expected it once",
    ),
    setting(
        "a temperature below 0",
        "evaluate.samples.temperature",
        -0.1,
        "text_generation",
        says="recipes/text_generation/toy.yaml: evaluate.samples.temperature: should be greater than or equal to 0, got -0.1",
    ),
    setting(
        "a scale of 0",
        "train.scale",
        0.0,
        "retrieval",
        says="recipes/retrieval/toy.yaml: train.scale: should be greater than 0, got 0.0",
    ),
    setting(
        "an unknown index",
        "evaluate.index",
        "hnsw",
        "retrieval",
        says="recipes/retrieval/toy.yaml: evaluate.index: should be 'exact' or 'faiss', got 'hnsw'",
    ),
    setting(
        "dimensions out of order",
        "tokenize.dimensions",
        [64, 32],
        "retrieval",
        says="recipes/retrieval/toy.yaml: tokenize: dimensions is [64, 32]; expected each once, the smallest first",
    ),
    setting(
        "vectors of one number",
        "tokenize.dimensions",
        [1, 32],
        "retrieval",
        says="recipes/retrieval/toy.yaml: tokenize.dimensions.0: should be greater than or equal to 2, got 1",
    ),
]


def file(name: str, content: bytes, path: str = "recipes/text_classification/toy.yaml", says: str = "") -> Case:
    """A recipe, or params.yaml, that is these bytes."""
    return Case(f"yaml: {name}", {f"../project/{path}": content}, {}, says)


CASES += [
    file(
        "nothing",
        b"",
        says="recipes/text_classification/toy.yaml: expected a mapping with the keys numerics, corpus, model, tokenize, train, evaluat",
    ),
    file(
        "a list",
        b"- a\n",
        says="recipes/text_classification/toy.yaml: expected a mapping with the keys numerics, corpus, model, tokenize, train, evaluat",
    ),
    file(
        "a text",
        b"corpus\n",
        says="recipes/text_classification/toy.yaml: expected a mapping with the keys numerics, corpus, model, tokenize, train, evaluat",
    ),
    file(
        "a tab",
        b"corpus:\n\tname: x\n",
        says="recipes/text_classification/toy.yaml:2: not valid YAML: a tab; expected blanks to indent with",
    ),
    file(
        "an open quote",
        b"corpus: 'x\n",
        says="recipes/text_classification/toy.yaml:2: not valid YAML: a quote that is not closed",
    ),
    file(
        "an open bracket",
        b"corpus: [x\n",
        says="recipes/text_classification/toy.yaml:2: not valid YAML: a missing comma or closing bracket",
    ),
    file(
        "a key twice",
        b"corpus: 1\ncorpus: 2\n",
        says="recipes/text_classification/toy.yaml:2: not valid YAML: the key corpus occurs twice; expected it once",
    ),
    file(
        "nested 10,000 deep",
        b"corpus: " + b"[" * 10_000 + b"\n",
        says="recipes/text_classification/toy.yaml: nested more than 50 deep; expected sections of a recipe",
    ),
    file(
        "indented 3,000 deep",
        b"".join(b" " * n + b"a:\n" for n in range(3000)),
        says="recipes/text_classification/toy.yaml: not a recipe's YAML: larger than 1 MiB; expected a recipe",
    ),
    file(
        "bytes that are no text",
        b"corpus: \xff\xfe\n",
        says="recipes/text_classification/toy.yaml: byte 8 is not UTF-8",
    ),
    file("NUL", b"corpus: \0\n", says="recipes/text_classification/toy.yaml: not valid YAML: a control character"),
    file(
        "a tag of Python",
        b"corpus: !!python/object/apply:os.system ['true']\n",
        says="recipes/text_classification/toy.yaml:1: not valid YAML: a text that begins with a sign of YAML's own, such as @ * & ! % ",
    ),
    file(
        "a number of 5,000 digits",
        b"corpus: " + b"9" * 5000 + b"\n",
        says="recipes/text_classification/toy.yaml: not a recipe's YAML: a number of thousands of digits",
    ),
    file(
        "a number of 5,000 digits in base 8",
        b"corpus: 0o" + b"7" * 5000 + b"\n",
        says="recipes/text_classification/toy.yaml: not a recipe's YAML: a whole number of 2^63 or more; expected a smaller one, or a ",
    ),
    file(
        "a date",
        b"corpus: 2024-01-01\n",
        says="recipes/text_classification/toy.yaml: numerics: required key is missing (without a value it takes the defaults); corpus: sho",
    ),
    file(
        "an impossible date",
        b"corpus: 2024-13-45\n",
        says="recipes/text_classification/toy.yaml: not a recipe's YAML: month must be in 1..12",
    ),
    file(
        "an alias that nothing is named",
        b"corpus: *a\n",
        says="recipes/text_classification/toy.yaml:1: not valid YAML: a text that begins with a sign of YAML's own, such as @ * & ! % ",
    ),
    file(
        "aliases of aliases",
        b"a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + b"".join(b"%c: &%c [%s]\n" % (n, n, b", ".join([b"*%c" % (n - 1)] * 10)) for n in range(ord("b"), ord("i"))),
        says="recipes/text_classification/toy.yaml: not a recipe's YAML: more than 100,000 values, with those that aliases stand for; ",
    ),
    file(
        "a key that is a list",
        b"? [a, b]\n: c\n",
        says="recipes/text_classification/toy.yaml: numerics: required key is missing (without a value it takes the defaults); corpus: req",
    ),
    file(
        "a key that is null",
        b"~: c\n",
        says="recipes/text_classification/toy.yaml: numerics: required key is missing (without a value it takes the defaults); corpus: req",
    ),
    file(
        "an anchor of itself",
        b"corpus: &a [*a]\n",
        says="recipes/text_classification/toy.yaml: nested more than 50 deep; expected sections of a recipe",
    ),
    file(
        "two documents",
        b"a: 1\n---\na: 2\n",
        says="recipes/text_classification/toy.yaml:2: not valid YAML: something that is not valid YAML at this place",
    ),
    file(
        "an invalid directive",
        b"%FOO bar\n---\na: 1\n",
        says="recipes/text_classification/toy.yaml: numerics: required key is missing (without a value it takes the defaults); corpus: req",
    ),
    file(
        "a line of 10 MB",
        b"corpus: " + b"x" * (10 << 20) + b"\n",
        says="recipes/text_classification/toy.yaml: not a recipe's YAML: larger than 1 MiB; expected a recipe",
    ),
    file(
        "params: nothing",
        b"",
        "params.yaml",
        says="params.yaml: expected a mapping with the keys task, recipe, seed, launcher",
    ),
    file(
        "params: a recipe that leads out",
        b"task: text_classification\nrecipe: ../../secret\n",
        "params.yaml",
        says="params.yaml: recipe: '../../secret'; expected a name of letters, digits and . _ - alone; seed: required key is missing (",
    ),
    file(
        "params: an unknown task",
        b"task: translation\nrecipe: toy\n",
        "params.yaml",
        says="params.yaml: seed: required key is missing (write it without a value for null); launcher: required key is missing (write",
    ),
    file(
        "params: a task that is a list",
        b"task: [a]\nrecipe: toy\n",
        "params.yaml",
        says="params.yaml: task: should be a valid string, got ['a']; seed: required key is missing (write it without a value for null",
    ),
    file(
        "params: a launcher with a second command",
        b"task: text_classification\nrecipe: toy\nlauncher: python; true\n",
        "params.yaml",
        says="launcher: 'python; true'; expected one command without ; & | < > ` and $(",
    ),
    file(
        "params: a launcher that asks the shell",
        b"task: text_classification\nrecipe: toy\nlauncher: $(true)\n",
        "params.yaml",
        says="launcher: '$(true)'; expected one command without",
    ),
    file(
        "an empty number",
        b"corpus: !!int ''\n",
        says="recipes/text_classification/toy.yaml: not valid YAML: something that is not valid YAML at this place (",
    ),
    file(
        "an empty number with a point",
        b"corpus: !!float ''\n",
        says="recipes/text_classification/toy.yaml: not valid YAML: something that is not valid YAML at this place (",
    ),
    file(
        "an invalid boolean",
        b"corpus: !!bool x\n",
        says="recipes/text_classification/toy.yaml: not valid YAML: something that is not valid YAML at this place (",
    ),
    file(
        "a character beyond Unicode",
        b'corpus: "\\UFFFFFFFF"\n',
        says="recipes/text_classification/toy.yaml: not valid YAML: something that is not valid YAML at this place (",
    ),
    file(
        "a list as a key",
        b"[[]]: 1\n",
        says="recipes/text_classification/toy.yaml: not valid YAML: something that is not valid YAML at this place (",
    ),
    file(
        "braces 2,000 deep",
        b"corpus: " + b"{" * 2000 + b"\n",
        says="recipes/text_classification/toy.yaml: nested more than 50 deep; expected sections of a recipe",
    ),
    Case(
        "recipe: a push of a model that sees a part of its corpus",
        {},
        {"export.hub_repo": "me/model", "tokenize.limit": 8},
        "toy.yaml: export.hub_repo pushes the model, and tokenize.limit trains it on a part of its corpus",
        "text_classification",
    ),
    file(
        "params: more threads than a system starts",
        b"task: text_classification\nrecipe: toy\nthreads: 100000\n",
        "params.yaml",
        says="threads: should be less than or equal to 1024, got 100000",
    ),
]
