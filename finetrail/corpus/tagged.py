"""Reads files of labelled tokens as raw records, one per sentence: CoNLL columns, CoNLL-U."""

import re
from collections.abc import Iterator
from pathlib import Path

from finetrail.corpus.raw import Raw, blocks, lines
from finetrail.errors import UserError
from finetrail.schema import ConllReader, ConlluReader

# str.split() and str.strip() would also split at no-break and ideographic spaces, which occur inside tokens.
WHITESPACE = " \t"
WHITESPACE_RUN = re.compile(f"[{WHITESPACE}]+")
DOCUMENT_START = "-DOCSTART-"
CONLLU_COLUMNS = {"form": 1, "upos": 3, "xpos": 4, "deprel": 7}
CONLLU_WIDTH = 10
# Comments of CoNLL-U that begin a document or a paragraph, and those that every sentence has for itself.
BEGINNINGS = ("newdoc", "newpar")
OF_SENTENCE = ("sent_id", "text")
WORD_ID = re.compile("[1-9][0-9]*")
# 1-2 is a range of words written as one, 8.1 an empty node: neither is a word of the tree.
OTHER_ID = re.compile("[1-9][0-9]*-[1-9][0-9]*|[0-9]+[.][1-9][0-9]*")


def conll(path: Path, name: str, reader: ConllReader) -> Iterator[Raw]:
    """Yield each block of lines as a sentence, with the columns that the recipe names; comments precede its tokens.

    What comments say as NAME=VALUE are columns too. A block of comments alone is a sentence without tokens, so that it
    is counted: they may have been tokens. UserError if a line has another number of columns than the first one: a
    blank in a token would cut it off.
    """
    expected = None
    for block in blocks(lines(path, name, reader.encoding), _parts_sentences):
        tokens: list[str] = []
        labels: list[str] = []
        about: dict[str, str] = {}
        for number, line in block:
            if reader.comment is not None and not tokens and line.startswith(reader.comment):
                about |= _said(line.removeprefix(reader.comment))
                continue
            columns = _columns(line, f"{name}:{number}", reader)
            expected = expected or len(columns)
            if len(columns) != expected:
                raise UserError(
                    f"{name}:{number}: {len(columns)} columns, and the first line has {expected}: {line[:80]!r}; "
                    "expected the same number in each line (if tokens contain blanks, use a separator such as a tab)"
                )
            _refuse_conllu(columns, f"{name}:{number}")
            tokens.append(columns[reader.token_column])
            # A blank after a label would make another label; tokens may begin or end with one if tabs separate.
            labels.append(columns[reader.label_column].strip(WHITESPACE))
        yield None, f"{name}:{block[0][0]}", about | {"tokens": tokens, "labels": labels}


def _refuse_conllu(columns: list[str], where: str) -> None:
    """Raise UserError for a line of CoNLL-U that is not a word: it has no head (column 6) and no relation to it."""
    if len(columns) == CONLLU_WIDTH and columns[6:8] == ["_", "_"] and OTHER_ID.fullmatch(columns[0]):
        raise UserError(
            f"{where}: {columns[0]} is no word but a range or an empty node of CoNLL-U; "
            "expected reader.format: conllu, or a file without them"
        )


def _columns(line: str, where: str, reader: ConllReader) -> list[str]:
    separator = reader.separator
    columns = WHITESPACE_RUN.split(line.strip(WHITESPACE)) if separator is None else line.split(separator)
    count = len(columns)
    for key, index in (("token_column", reader.token_column), ("label_column", reader.label_column)):
        if not -count <= index < count:
            needed = index + 1 if index >= 0 else -index
            plural = "" if count == 1 else "s"
            raise UserError(f"{where}: {count} column{plural}, {key} {index} needs at least {needed}: {line[:80]!r}")
    if reader.token_column % count == reader.label_column % count:
        raise UserError(f"{where}: token_column and label_column are the same of {count} columns: {line[:80]!r}")
    return columns


def conllu(path: Path, name: str, reader: ConlluReader) -> Iterator[Raw]:
    """Yield the words of each sentence, whose id is its sent_id; of one without words too, so that it is counted.

    In a file that has such ids, a sentence without one has its file and line: a number could be another's id. What
    comments say as NAME = VALUE are columns too; those before the first sentence of a document are of all of it.
    """
    of_document: dict[str, str] = {}
    has_ids = any(_sentence_id(line) is not None for _, line in lines(path, name, reader.encoding))
    for block in blocks(lines(path, name, reader.encoding), _parts_sentences):
        where = f"{name}:{block[0][0]}"
        sentence_id, tokens, labels = where if has_ids else None, [], []
        about: dict[str, str] = {}
        for number, line in block:
            if line.startswith("#"):
                about |= _said(line.removeprefix("#"))
                own = _sentence_id(line)
                sentence_id = sentence_id if own is None else own
                continue
            columns = line.split("\t")
            if len(columns) != CONLLU_WIDTH:
                raise UserError(f"{name}:{number}: {len(columns)} columns; CoNLL-U has 10, with tabs between them")
            if WORD_ID.fullmatch(columns[0]):
                tokens.append(columns[CONLLU_COLUMNS["form"]])
                labels.append(columns[CONLLU_COLUMNS[reader.label]])
            elif not OTHER_ID.fullmatch(columns[0]):
                raise UserError(
                    f"{name}:{number}: the id is {columns[0]!r:.60}; expected a word's as 1, a range's as 1-2 or an "
                    "empty node's as 1.1"
                )
        about = {key: value for key, value in about.items() if key not in OF_SENTENCE}
        of_document = about if BEGINNINGS[0] in about else of_document
        yield sentence_id, where, of_document | about | {"tokens": tokens, "labels": labels}


def _said(comment: str) -> dict[str, str]:
    """Return the name and value of a comment NAME = VALUE; an empty dict for other comments.

    The name is the word before the sign: `genre = news`, GUM's `meta::genre = news`, MultiCoNER's `id 7f2 domain=en`.
    Of `newdoc id = a`, it is newdoc.
    """
    before, sign, value = comment.partition("=")
    words = before.split()
    if words and words[0] in BEGINNINGS:
        return {words[0]: value.strip()}
    return {words[-1].rpartition("::")[2]: value.strip()} if sign and words else {}


def _sentence_id(line: str) -> str | None:
    key, _, value = line.removeprefix("#").partition("=")
    return value.strip() if line.startswith("#") and key.strip() == "sent_id" else None


def _parts_sentences(line: str) -> bool:
    # WNUT-2016 has a lone tab between sentences.
    return not line.strip(WHITESPACE) or line.startswith(DOCUMENT_START)
