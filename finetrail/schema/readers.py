"""Formats of corpora: one section per format, discriminated by `format`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from finetrail.schema.base import DELIMITER, Settings, one_message

FileEncoding = Annotated[
    str,
    Field(
        min_length=1,
        description="encoding of the files, such as utf-8; a byte order mark overrides it; invalid bytes are an error",
    ),
]
JOINED = "The texts of a list are joined by spaces; empty ones are skipped"
CsvColumn = Annotated[
    str | int | Annotated[list[str | int], Field(min_length=1)],
    one_message(
        "expected the name of a column, or its number from 0 in files without a header line, or a list of either"
    ),
]


PathColumn = Annotated[
    str | Annotated[list[str], Field(min_length=1)],
    one_message("expected the name of a column, the path of one such as labels.score, or a list of either"),
]
PATH_HELP = f"a path such as labels.score, or a list of either. {JOINED}"


class ConllReader(Settings):
    """Text with one token per line, in columns, and a blank line between sentences."""

    format: Literal["conll"]
    separator: str | None = Field(min_length=1, description="separator of the columns; null: any run of white space")
    token_column: int = Field(description="index of the column with the token, from 0; negative: from the end")
    label_column: int = Field(description="index of the column with the label, from 0; negative: from the end")
    comment: str | None = Field(
        min_length=1,
        description="prefix of comment lines, which are skipped before a sentence's first token; null: no comments",
    )
    encoding: FileEncoding


class ConlluReader(Settings):
    """The ten columns of Universal Dependencies. Multiword ranges and empty nodes are skipped."""

    format: Literal["conllu"]
    label: Literal["upos", "xpos", "deprel"] = Field(description="column to predict")
    encoding: FileEncoding


class JsonLinesReader(Settings):
    """One JSON object per line."""

    format: Literal["jsonl"]
    columns: dict[str, PathColumn] = Field(description=f"column of the task -> key of the object, {PATH_HELP}")
    encoding: FileEncoding


class JsonReader(Settings):
    """One JSON array of objects, as in KLUE. The file is read into memory as a whole."""

    format: Literal["json"]
    array: str | None = Field(
        min_length=1, description="path of the array in the file, such as data; null: the file is the array"
    )
    columns: dict[str, PathColumn] = Field(description=f"column of the task -> key of the object, {PATH_HELP}")
    encoding: FileEncoding


class ParquetReader(Settings):
    """Parquet files, and datasets of the Hub. ClassLabel features are read as their names."""

    format: Literal["parquet"]
    columns: dict[str, PathColumn] = Field(description=f"column of the task -> column of the file, {PATH_HELP}")


class CsvReader(Settings):
    """Delimited text such as CSV or TSV, with or without a header line."""

    format: Literal["csv"]
    columns: dict[str, CsvColumn] = Field(
        description="column of the task -> column of the file, or a list of columns. Names: the first line is a "
        f"header. Whole numbers: there is no header line; they are indices from 0, or from the end if negative. "
        f"{JOINED}"
    )
    delimiter: str = Field(pattern=DELIMITER, description="separator of the columns, one character")
    quoting: Literal["minimal", "none"] = Field(
        description="minimal: a field may be in double quotes, with quotes inside it doubled; none: quotes are text"
    )
    encoding: FileEncoding

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
    """Plain text, where a file, a line or a paragraph is one example."""

    format: Literal["text"]
    unit: Literal["file", "line", "paragraph"] = Field(
        description="what one example is; paragraphs are separated by blank lines"
    )
    columns: dict[str, Literal["text", "first_line", "rest", "folder", "stem"]] = Field(
        description="column of the task -> text: the whole text; first_line: its first line; rest: the text after its "
        "first line; folder: the name of the file's folder; stem: the name of the file without its extension"
    )
    encoding: FileEncoding


class SquadReader(Settings):
    """JSON of SQuAD 1.1, SQuAD 2.0 and KorQuAD 1.0: articles with paragraphs with questions."""

    format: Literal["squad"]


class BeirReader(Settings):
    """Layout of BEIR: documents and queries as JSON lines, relevance judgements (qrels) as one TSV per split."""

    format: Literal["beir"]
    documents: str = Field(min_length=1, description="JSON lines with _id, title and text; path inside the source")
    queries: str = Field(min_length=1, description="JSON lines with _id and text; path inside the source")


# The readers of tasks whose examples are texts: tables, and plain text.
TableReader = Annotated[
    CsvReader | JsonLinesReader | JsonReader | ParquetReader | TextReader, Field(discriminator="format")
]


# --- readers of character spans -----------------------------------------------------------------------------------


class SpanRules(Settings):
    """How character spans become tags of words. Spans that are changed or dropped are counted, with an example each."""

    words: Literal["unicode", "punctuation", "characters"] = Field(
        description="how texts are split into words, in inference too. unicode: at the word boundaries of Unicode (UAX "
        "#29), so that 3.5 and Ada's are one word; punctuation: in addition, each punctuation mark is a word; "
        "characters: each character is a word, for languages that attach particles to names or write no spaces"
    )
    units: Literal["characters", "utf16", "graphemes"] = Field(
        description="unit of start and end. characters: code points of Unicode, as in Python and most tools; utf16: "
        "code units of UTF-16, in which an emoji is two, as in doccano and earlier versions of Label Studio; "
        "graphemes: user-perceived characters, an option of doccano"
    )
    blanks: Literal["trim", "drop", "refuse"] = Field(
        description="spans with white space at their ends: trim the white space, drop the span, or refuse (an error)"
    )
    inside_words: Literal["snap", "drop", "refuse"] = Field(
        description="spans that begin or end inside a word: snap to the whole word, drop the span, or refuse (an error)"
    )
    overlapping: Literal["longest", "refuse"] = Field(
        description="spans that share a word, also nested ones: keep the longest in words (the first if equal), or "
        "refuse (an error)"
    )
    empty: Literal["drop", "refuse"] = Field(
        description="spans without text, or with white space alone: drop them, or refuse (an error)"
    )


class DoccanoReader(Settings):
    """JSONL of doccano for sequence labeling, with or without relations."""

    format: Literal["doccano"]
    spans: SpanRules
    encoding: FileEncoding


class LabelStudioReader(Settings):
    """JSON and JSON-MIN of Label Studio, for a Text tag with Labels. The file is read into memory as a whole."""

    format: Literal["label_studio"]
    text: str = Field(
        min_length=1, description="key of a task's data that holds the text: text, if the Text tag has $text"
    )
    take: Literal["annotations", "predictions"] = Field(
        description="annotations: those of people; predictions: pre-annotations of a model"
    )
    several: Literal["first", "last", "refuse"] = Field(
        description="which annotation to take if a task has several: the first, the last, or refuse (an error). Those "
        "marked as ground truth come first; cancelled ones are ignored"
    )
    spans: SpanRules
    encoding: FileEncoding


class ProdigyReader(Settings):
    """JSONL of Prodigy, as db-out writes it. Only accepted examples are read."""

    format: Literal["prodigy"]
    spans: SpanRules
    encoding: FileEncoding


class BratReader(Settings):
    """Standoff format of brat: a .txt and an .ann file per document. corpus.splits name a folder, or the .txt files."""

    format: Literal["brat"]
    discontinuous: Literal["cover", "drop", "refuse"] = Field(
        description="spans of several parts with more than white space between them: cover (one span from the first "
        "part to the last), drop, or refuse (an error)"
    )
    spans: SpanRules
    encoding: FileEncoding


class SpacyReader(Settings):
    """Files of spaCy (.spacy, DocBin). spaCy has to be installed."""

    format: Literal["spacy"]
    group: str | None = Field(min_length=1, description="key of doc.spans, such as sc; null: doc.ents")
    spans: SpanRules


class SpansReader(Settings):
    """One JSON object per line: text, spans (a list of objects with start, end and label), and optionally id."""

    format: Literal["spans"]
    spans: SpanRules
    encoding: FileEncoding


SpanReader = DoccanoReader | LabelStudioReader | ProdigyReader | BratReader | SpacyReader | SpansReader
