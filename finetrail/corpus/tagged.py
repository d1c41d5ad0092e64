"""Turns files of labelled tokens into raw records, one sentence each: CoNLL columns, CoNLL-U."""

import re
from collections.abc import Iterator
from pathlib import Path

from finetrail.corpus.raw import Raw, blocks, lines
from finetrail.errors import UserError
from finetrail.schema import ConllReader, ConlluReader

# Not str.split() and str.strip(): they also take the no-break and the ideographic space, which stand inside tokens.
WHITESPACE = " \t"
WHITESPACE_RUN = re.compile(f"[{WHITESPACE}]+")
DOCUMENT_START = "-DOCSTART-"
CONLLU_COLUMNS = {"form": 1, "upos": 3, "xpos": 4, "deprel": 7}


def conll(path: Path, name: str, reader: ConllReader) -> Iterator[Raw]:
    """Yield a block of lines as a sentence, with the columns that the recipe names.

    UserError where a line has another number of columns than the first one: a blank in a token would cut it off.
    """
    expected = None
    for block in blocks(lines(path, name, reader.encoding), _parts_sentences):
        tokens, labels = [], []
        for number, line in block:
            if reader.comment is None or not line.startswith(reader.comment):
                columns = _columns(line, f"{name}:{number}", reader)
                expected = expected or len(columns)
                if len(columns) != expected:
                    raise UserError(
                        f"{name}:{number}: {len(columns)} columns, and the first line has {expected}: {line[:80]!r}; "
                        "expected as many in each (where tokens hold blanks, columns need a separator such as a tab)"
                    )
                tokens.append(columns[reader.token_column])
                # A blank behind a label would be another label; tokens may begin or end with one, if a tab separates.
                labels.append(columns[reader.label_column].strip(WHITESPACE))
        if tokens:
            yield None, f"{name}:{block[0][0]}", {"tokens": tokens, "labels": labels}


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
    """Yield the words of each sentence, whose id is its sent_id."""
    for block in blocks(lines(path, name, reader.encoding), _parts_sentences):
        sentence_id, tokens, labels = None, [], []
        for number, line in block:
            if line.startswith("#"):
                key, _, value = line[1:].partition("=")
                sentence_id = value.strip() if key.strip() == "sent_id" else sentence_id
                continue
            columns = line.split("\t")
            if len(columns) != 10:
                raise UserError(f"{name}:{number}: {len(columns)} columns; CoNLL-U has 10, with tabs between them")
            # 1-2 is a range of words written as one, 8.1 an empty node: neither is a word of the tree.
            if columns[0].isdecimal():
                tokens.append(columns[CONLLU_COLUMNS["form"]])
                labels.append(columns[CONLLU_COLUMNS[reader.label]])
        if tokens:
            yield sentence_id, f"{name}:{block[0][0]}", {"tokens": tokens, "labels": labels}


def _parts_sentences(line: str) -> bool:
    # WNUT-2016 has a lone tab between sentences.
    return not line.strip(WHITESPACE) or line.startswith(DOCUMENT_START)
