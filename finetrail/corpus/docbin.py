"""Reads .spacy files as raw records of texts with spans. spaCy reads them: they are msgpack, without pickles."""

from collections.abc import Iterator
from pathlib import Path

from finetrail.corpus.annotated import DOCUMENT_LABELS, NO_LABEL, annotated
from finetrail.corpus.raw import Raw, listed
from finetrail.corpus.spans import Span
from finetrail.errors import UserError
from finetrail.schema import SpacyReader


def docbin(path: Path, name: str, reader: SpacyReader) -> Iterator[Raw]:
    """Yield the text of each Doc with its entities, or with the spans of a group."""
    try:
        import spacy
        from spacy.tokens import DocBin
    except ImportError:
        raise UserError(
            f"{name}: reader.format: spacy needs spaCy, which is not installed; expected it: pip install spacy"
        ) from None
    try:
        docs = list(DocBin().from_disk(path).get_docs(spacy.blank("xx").vocab))
    except Exception as error:  # foreign bytes: zlib, msgpack and spaCy raise whatever they run into
        problem = str(error) or type(error).__name__
        raise UserError(f"{name}: not a .spacy file: {problem.splitlines()[0]:.100}") from None
    for number, doc in enumerate(docs):
        where = f"{name}, document {number}"
        if reader.group is not None and reader.group not in doc.spans:
            raise UserError(
                f"{where}: no group {reader.group!r} in doc.spans; the groups there are {listed(doc.spans)}"
            )
        taken = doc.ents if reader.group is None else doc.spans[reader.group]
        others = sum(len(group) for key, group in doc.spans.items() if key != reader.group)
        left_out = {
            DOCUMENT_LABELS: len(doc.cats),
            NO_LABEL: sum(not span.label_ for span in taken),
            "spans of other groups": others + (0 if reader.group is None else len(doc.ents)),
        }
        spans = [Span(span.start_char, span.end_char, span.label_) for span in taken if span.label_]
        yield None, where, annotated(doc.text, spans, left_out)
