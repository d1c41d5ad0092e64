"""Formats of corpora: one section for each, discriminated by `format`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from finetrail.schema.base import DELIMITER, Settings, told

ENCODING_HELP = "of files without a byte order mark, which overrides it; bytes that do not fit are an error"
JOINED = "Of a list, the texts are joined by blanks, without empty ones"
CsvColumn = Annotated[
    str | int | Annotated[list[str | int], Field(min_length=1)],
    told("expected the name of a column, or its number from 0 in files without a header line, or a list of either"),
]


PathColumn = Annotated[
    str | Annotated[list[str], Field(min_length=1)],
    told("expected the name of a column, the path of one such as labels.score, or a list of either"),
]
PATH_HELP = f"or its path, such as labels.score, or a list of them. {JOINED}"


class ConllReader(Settings):
    """Columns of a text file, one token a line, a blank line between sentences."""

    format: Literal["conll"]
    separator: str | None = Field(min_length=1, description="between columns; null is any run of whitespace")
    token_column: int = Field(description="index of the token's column; negative counts from the end")
    label_column: int = Field(description="index of the label's column; negative counts from the end")
    comment: str | None = Field(
        min_length=1, description="lines that begin so before the first token of a sentence are skipped; null: none are"
    )
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class ConlluReader(Settings):
    """Universal Dependencies' ten columns; multiword ranges and empty nodes are left out."""

    format: Literal["conllu"]
    label: Literal["upos", "xpos", "deprel"] = Field(description="the column to predict")
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class JsonLinesReader(Settings):
    """One JSON object a line."""

    format: Literal["jsonl"]
    columns: dict[str, PathColumn] = Field(description=f"the task's column -> the object's key, {PATH_HELP}")
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class JsonReader(Settings):
    """One JSON array of objects, as KLUE has it; it is read whole."""

    format: Literal["json"]
    array: str | None = Field(
        min_length=1, description="path of the array in the file, such as data; null: the file is the array"
    )
    columns: dict[str, PathColumn] = Field(description=f"the task's column -> the object's key, {PATH_HELP}")
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class ParquetReader(Settings):
    """Parquet files, and Hub datasets: ClassLabel features are read as their names."""

    format: Literal["parquet"]
    columns: dict[str, PathColumn] = Field(description=f"the task's column -> the file's column, {PATH_HELP}")


class CsvReader(Settings):
    """Delimited text, with or without a header line: CSV, TSV."""

    format: Literal["csv"]
    columns: dict[str, CsvColumn] = Field(
        description="the task's column -> the file's column, or a list of them. Names: the first line is a header; "
        f"whole numbers: there is none, they count columns from 0, negative ones from the end. {JOINED}"
    )
    delimiter: str = Field(pattern=DELIMITER, description="between columns")
    quoting: Literal["minimal", "none"] = Field(
        description="minimal: a field may stand in double quotes, where they are doubled; none: quotes are text"
    )
    encoding: str = Field(min_length=1, description=ENCODING_HELP)

    @model_validator(mode="after")
    def _names_or_numbers(self) -> "CsvReader":
        given = [
            part for column in self.columns.values() for part in (column if isinstance(column, list) else [column])
        ]
        if len({type(part) for part in given}) > 1:
            raise ValueError(
                f"columns has names and numbers: {', '.join(map(repr, given))}; expected names where the file has a "
                "header line, numbers where it has none"
            )
        return self


class TextReader(Settings):
    """Plain text: one example a file, a line or a paragraph."""

    format: Literal["text"]
    unit: Literal["file", "line", "paragraph"] = Field(description="an example; blank lines part paragraphs")
    columns: dict[str, Literal["text", "first_line", "rest", "folder", "stem"]] = Field(
        description="the task's column -> the whole text, its first line, the text after that, the name of the file's "
        "folder, or of the file without its ending"
    )
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class SquadReader(Settings):
    """SQuAD's JSON (1.1, 2.0, KorQuAD 1.0): articles of paragraphs of questions."""

    format: Literal["squad"]


class BeirReader(Settings):
    """BEIR's layout: documents and queries as JSON lines, judgements (qrels) as one TSV a split."""

    format: Literal["beir"]
    documents: str = Field(min_length=1, description="JSON lines of _id, title, text; path inside the source")
    queries: str = Field(min_length=1, description="JSON lines of _id, text; path inside the source")


# --- readers of character spans -----------------------------------------------------------------------------------


class SpanRules(Settings):
    """How character spans become tags of words; what is mended or left out is counted, with an example of each."""

    words: Literal["unicode", "punctuation", "characters"] = Field(
        description="what cuts texts into words, in inference too. unicode: word boundaries of Unicode (UAX #29), so "
        "that 3.5 and Ada's are one word; punctuation: each punctuation mark is also a word; characters: each one is "
        "a word, for languages that write particles onto names, or no blanks"
    )
    units: Literal["characters", "utf16", "graphemes"] = Field(
        description="what start and end count. characters: of Unicode, as Python and most tools do; utf16: code units, "
        "as doccano does and Label Studio did, where an emoji is two; graphemes: what people see as one character, an "
        "option of doccano"
    )
    blanks: Literal["trim", "drop", "refuse"] = Field(description="of spans with white space at their ends")
    inside_words: Literal["snap", "drop", "refuse"] = Field(
        description="of spans that begin or end inside a word; snap: take the whole word"
    )
    overlapping: Literal["longest", "refuse"] = Field(
        description="of spans that share a word, nested ones too; longest: keep the one of most words, of equals the "
        "first"
    )
    empty: Literal["drop", "refuse"] = Field(description="of spans without text, or of white space alone")


class DoccanoReader(Settings):
    """doccano's JSONL of sequence labelling, with or without relations."""

    format: Literal["doccano"]
    spans: SpanRules
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class LabelStudioReader(Settings):
    """Label Studio's JSON and JSON-MIN, of a Text tag with Labels; the file is read whole."""

    format: Literal["label_studio"]
    text: str = Field(min_length=1, description="the key of a task's data that holds the text: $text in its Text tag")
    take: Literal["annotations", "predictions"] = Field(description="of people, or pre-annotations of a model")
    several: Literal["first", "last", "refuse"] = Field(
        description="annotations of one task: which one to take, after those marked as ground truth; cancelled ones "
        "are left out before"
    )
    spans: SpanRules
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class ProdigyReader(Settings):
    """Prodigy's JSONL, as db-out writes it: examples that were accepted."""

    format: Literal["prodigy"]
    spans: SpanRules
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class BratReader(Settings):
    """brat's standoff format: a .txt for each document, and a .ann beside it; splits name a folder, or the .txt."""

    format: Literal["brat"]
    discontinuous: Literal["cover", "drop", "refuse"] = Field(
        description="of spans in parts with more than white space between them; cover: from the first to the last"
    )
    spans: SpanRules
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


class SpacyReader(Settings):
    """spaCy's .spacy files (DocBin), read by spaCy, which has to be installed."""

    format: Literal["spacy"]
    group: str | None = Field(min_length=1, description="a group of doc.spans, such as sc; null: doc.ents")
    spans: SpanRules


class SpansReader(Settings):
    """One JSON object a line: text, spans (a list of start, end, label), and perhaps id."""

    format: Literal["spans"]
    spans: SpanRules
    encoding: str = Field(min_length=1, description=ENCODING_HELP)


SpanReader = DoccanoReader | LabelStudioReader | ProdigyReader | BratReader | SpacyReader | SpansReader
