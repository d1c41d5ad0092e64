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
CONLLU_WIDTH = 10
WORD_ID = re.compile("[1-9][0-9]*")
# 1-2 is a range of words written as one, 8.1 an empty node: neither is a word of the tree.
OTHER_ID = re.compile("[1-9][0-9]*-[1-9][0-9]*|[0-9]+[.][1-9][0-9]*")


def conll(path: Path, name: str, reader: ConllReader) -> Iterator[Raw]:
    """Yield a block of lines as a sentence, with the columns that the recipe names; comments stand before its tokens.

    A block of comments alone is a sentence without tokens, so that it is counted: they may have been tokens. UserError
    where a line has another number of columns than the first one: a blank in a token would cut it off.
    """
    expected = None
    for block in blocks(lines(path, name, reader.encoding), _parts_sentences):
        tokens: list[str] = []
        labels: list[str] = []
        for number, line in block:
            if reader.comment is not None and not tokens and line.startswith(reader.comment):
                continue
            columns = _columns(line, f"{name}:{number}", reader)
            expected = expected or len(columns)
            if len(columns) != expected:
                raise UserError(
                    f"{name}:{number}: {len(columns)} columns, and the first line has {expected}: {line[:80]!r}; "
                    "expected as many in each (where tokens hold blanks, columns need a separator such as a tab)"
                )
            _refuse_conllu(columns, f"{name}:{number}")
            tokens.append(columns[reader.token_column])
            # A blank behind a label would be another label; tokens may begin or end with one, if a tab separates.
            labels.append(columns[reader.label_column].strip(WHITESPACE))
        yield None, f"{name}:{block[0][0]}", {"tokens": tokens, "labels": labels}


def _refuse_conllu(columns: list[str], where: str) -> None:
    """Raise UserError for a line of CoNLL-U that is no word: it has no head (column 6) and no relation to it."""
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

    In a file that has such ids, a sentence without one has its file and line: a number could be another's id.
    """
    has_ids = any(_sentence_id(line) is not None for _, line in lines(path, name, reader.encoding))
    for block in blocks(lines(path, name, reader.encoding), _parts_sentences):
        where = f"{name}:{block[0][0]}"
        sentence_id, tokens, labels = where if has_ids else None, [], []
        for number, line in block:
            if line.startswith("#"):
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
        yield sentence_id, where, {"tokens": tokens, "labels": labels}


def _sentence_id(line: str) -> str | None:
    key, _, value = line.removeprefix("#").partition("=")
    return value.strip() if line.startswith("#") and key.strip() == "sent_id" else None


def _parts_sentences(line: str) -> bool:
    # WNUT-2016 has a lone tab between sentences.
    return not line.strip(WHITESPACE) or line.startswith(DOCUMENT_START)
