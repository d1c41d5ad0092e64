"""Tag schemes: IOB2 has the chunks that conlleval reads in the original, whatever the original is."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seqeval import scheme as reference
from seqeval.metrics.sequence_labeling import get_entities

from finetrail.corpus.tags import to_iob2

SCHEMES = ["iob1", "iob2", "iobes"]
TYPES = st.sampled_from(["PER", "geo-loc"])
# (type or None for O, number of tokens)
SEGMENTS = st.lists(st.tuples(st.none() | TYPES, st.integers(1, 4)), max_size=6)


def labels_of(scheme):
    """Any labels of a scheme, most of them in an order that it forbids."""
    prefixes = st.sampled_from("BIES" if scheme == "iobes" else "BI")
    return st.lists(st.just("O") | st.builds("{}-{}".format, prefixes, TYPES), max_size=8)


def chunks_of_segments(segments):
    chunks, start = [], 0
    for kind, length in segments:
        if kind:
            chunks.append((kind, start, start + length - 1))
        start += length
    return chunks, start


def write(chunks, length, scheme):
    """Write chunks (type, first, last) in a scheme, from its definition."""
    labels = ["O"] * length
    for kind, first, last in chunks:
        labels[first : last + 1] = [f"I-{kind}"] * (last + 1 - first)
        touches = any(other == kind and end == first - 1 for other, _, end in chunks)
        if scheme != "iob1" or touches:
            labels[first] = f"B-{kind}"
        if scheme == "iobes":
            labels[last] = f"{'S' if first == last else 'E'}-{kind}"
    return labels


def conlleval(labels):
    """Read chunks (type, first, last) by the rules of conlleval's startOfChunk and endOfChunk, S as in its port."""
    chunks, start = [], None
    padded = ["O", *labels, "O"]
    for position, (before, after) in enumerate(zip(padded, padded[1:], strict=False)):
        last, _, last_type = before.partition("-")
        tag, _, kind = after.partition("-")
        ends = last + tag in ("BB", "BS", "BO", "IB", "IS", "IO") or last in "ES" or (last != "O" and last_type != kind)
        starts = tag in "BS" or last + tag in ("OI", "OE", "EI", "EE", "SI", "SE") or (tag != "O" and last_type != kind)
        if start is not None and ends:
            chunks.append((last_type, start, position - 1))
            start = None
        if starts:
            start = position
    return chunks


@pytest.mark.parametrize("scheme", SCHEMES)
@given(data=st.data())
def test_chunks_survive_whatever_the_labels(scheme, data):
    labels = data.draw(labels_of(scheme))
    normalised, _ = to_iob2(labels, scheme)
    assert conlleval(normalised) == conlleval(labels)
    assert get_entities(normalised) == get_entities(labels) == conlleval(labels)
    assert normalised == write(conlleval(labels), len(labels), "iob2")


@pytest.mark.parametrize("scheme", SCHEMES)
@given(SEGMENTS)
def test_valid_labels_of_each_scheme_become_the_same_iob2(scheme, segments):
    chunks, length = chunks_of_segments(segments)
    assert to_iob2(write(chunks, length, scheme), scheme) == (write(chunks, length, "iob2"), [])


@given(SEGMENTS)
def test_bilou_is_read_as_iobes(segments):
    iobes = write(*chunks_of_segments(segments), "iobes")
    bilou = [label.replace("E-", "L-").replace("S-", "U-") for label in iobes]
    assert to_iob2(bilou, "iobes") == to_iob2(iobes, "iobes")


@pytest.mark.parametrize("scheme", SCHEMES)
@given(data=st.data())
def test_labels_are_impossible_where_their_scheme_forbids_them(scheme, data):
    labels = data.draw(labels_of(scheme))
    _, impossible = to_iob2(labels, scheme)
    assert (impossible == []) == (labels == write(conlleval(labels), len(labels), scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
@given(data=st.data())
def test_iob2_is_a_fixed_point(scheme, data):
    normalised, _ = to_iob2(data.draw(labels_of(scheme)), scheme)
    assert to_iob2(normalised, "iob2") == (normalised, [])


@pytest.mark.parametrize(
    ("scheme", "labels", "expected", "impossible"),
    [
        ("iob2", "I-X I-X O I-Y", "B-X I-X O B-Y", [0, 3]),
        ("iob2", "B-X I-Y I-Y", "B-X B-Y I-Y", [1]),
        ("iob1", "I-X B-X I-Y O B-X", "B-X B-X B-Y O B-X", [4]),
        ("iobes", "B-X E-X S-X", "B-X I-X B-X", []),
        ("iobes", "B-X O", "B-X O", [1]),
        ("iobes", "B-X I-X", "B-X I-X", [1]),
        ("iobes", "S-X E-X O I-X E-X", "B-X B-X O B-X I-X", [1, 3]),
        ("iobes", "I-X", "B-X", [0, 0]),
        ("iobes", "", "", []),
    ],
)
def test_impossible_transitions_are_repaired_and_reported(scheme, labels, expected, impossible):
    assert to_iob2(labels.split(), scheme) == (expected.split(), impossible)


@pytest.mark.parametrize("label", ["B_PS", "PER", "B-", "-X", "B", "b-X", "o", "", "BI-X", "M-X", "O-X", " O"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_unknown_label_shape_is_refused_with_its_position(scheme, label):
    with pytest.raises(
        ValueError, match=rf"^label 1 is {label!r}; expected O, B-TYPE.*I-TYPE.* scheme {scheme}(; .*)?$"
    ):
        to_iob2(["O", label], scheme)


REFERENCES = {"iob2": reference.IOB2, "iobes": reference.IOBES, "bilou": reference.BILOU}
ORDERS = {"B-TYPE": "{0}-{1}", "B_TYPE": "{0}_{1}", "TYPE-B": "{1}-{0}", "TYPE::B": "{1}::{0}"}


@pytest.mark.parametrize("shape", ORDERS)
@pytest.mark.parametrize("scheme", REFERENCES)
@given(SEGMENTS)
def test_each_scheme_and_shape_has_the_chunks_of_seqeval(scheme, shape, segments):
    chunks, length = chunks_of_segments(segments)
    labels = write(chunks, length, "iobes" if scheme == "bilou" else scheme)
    if scheme == "bilou":
        labels = [label.replace("E-", "L-").replace("S-", "U-") for label in labels]
    labels = [label if label == "O" else ORDERS[shape].format(*label.split("-", 1)) for label in labels]
    normalised, impossible = to_iob2(labels, scheme, shape)
    if "::" not in shape:  # seqeval takes separators of one character
        suffix, delimiter = shape.startswith("TYPE"), shape.strip("BTYPE")
        entities = reference.Entities([labels], REFERENCES[scheme], suffix, delimiter).entities[0] if labels else []
        assert [(entity.tag, entity.start, entity.end - 1) for entity in entities] == get_entities(normalised)
    assert (normalised, impossible) == (write(chunks, length, "iob2"), [])


@pytest.mark.parametrize(
    ("labels", "shape", "expected"),
    [
        ("LOC LOC O PER LOC", "B-TYPE", "B-LOC I-LOC O B-PER B-LOC"),
        ("I-LOC I-LOC O I-PER LOC", "B-TYPE", "B-LOC I-LOC O B-PER B-LOC"),
        ("geo-loc geo-loc O", "B-TYPE", "B-geo-loc I-geo-loc O"),
        ("LOC_I LOC O", "TYPE_B", "B-LOC I-LOC O"),
    ],
)
def test_io_joins_neighbours_of_one_type(labels, shape, expected):
    assert to_iob2(labels.split(), "io", shape) == (expected.split(), [])


@pytest.mark.parametrize(
    ("label", "scheme", "shape", "message"),
    [
        ("B-LOC", "io", "B-TYPE", "expected O, TYPE or I-TYPE in the scheme io"),
        ("I-", "io", "B-TYPE", "expected O, TYPE or I-TYPE in the scheme io"),
        ("E-LOC", "bilou", "B-TYPE", "expected O, B-TYPE, I-TYPE, L-TYPE or U-TYPE in the scheme bilou"),
        ("B-LOC", "iob2", "TYPE-B", "expected O, TYPE-B or TYPE-I in the scheme iob2"),
        ("LOC-B", "iob2", "B-TYPE", "in the scheme iob2; TYPE-B and the like are declared as corpus.tags.scheme.shape"),
        ("B_LOC", "bilou", "B-TYPE", "the scheme bilou; TYPE-B and the like are declared as corpus.tags.scheme.shape"),
    ],
)
def test_labels_of_another_shape_are_refused_with_a_hint(label, scheme, shape, message):
    with pytest.raises(ValueError, match=message + "$"):
        to_iob2([label], scheme, shape)


def test_bilou_repairs_what_iobes_does():
    assert to_iob2(["U-X", "L-X", "O", "I-X"], "bilou") == to_iob2(["S-X", "E-X", "O", "I-X"], "iobes")


@pytest.mark.parametrize("label", ["S-X", "E-X", "L-X", "U-X"])
def test_prefixes_of_iobes_are_refused_in_iob(label):
    with pytest.raises(ValueError, match="expected O, B-TYPE or I-TYPE in the scheme iob2"):
        to_iob2([label], "iob2")


def test_a_corpus_of_200k_words_takes_well_under_a_second():
    sentence = ["O", "B-X", "I-X", "O", "S-Y", "O", "B-Y", "E-Y", "O", "O"]
    start = time.process_time()
    for _ in range(20_000):
        to_iob2(sentence, "iobes")
    assert time.process_time() - start < 1
