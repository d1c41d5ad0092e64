"""Splits: every record in exactly one, sizes as asked, and the same ones each time."""

from collections import Counter
from itertools import islice, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from finetrail.corpus.readers import Record
from finetrail.corpus.splits import _rounded, assemble, carve, carve_groups
from finetrail.errors import UserError
from finetrail.schema import Splits

# What seed 42 draws of 10 rows: other numbers mean other splits for everybody's recipes.
VALIDATION_42 = [4, 8]
TEST_42 = [1, 3, 9]
TRAIN_42 = [0, 2, 5, 6, 7]
# And of five pairs: 30% of 10 rows are one pair, for two do not fit.
GROUPS_42 = {"train": ["0", "1", "4", "5", "6", "7"], "validation": ["8", "9"], "test": ["2", "3"]}


def records(n, name="a"):
    return [Record(f"{name}{number}", f"{name}:{number}", {}) for number in range(n)]


def labelled(labels, column="label"):
    return [Record(str(number), f"a:{number}", {column: label}) for number, label in enumerate(labels)]


def assembled(splits, files):
    """Return {split: ids}, from {pattern: records}."""
    found = {"train": [], "validation": [], "test": []}
    for split, record in assemble(splits, lambda pattern: iter(files[pattern])):
        found.setdefault(split, []).append(record.id)
    return found


def carving(stratify=None, **changes):
    given = {"train": "tr", "validation": 0.2, "test": 0.3, "seed": 42, "stratify": stratify, "group": None}
    return Splits(**given | changes)


@given(st.integers(20, 3000), st.floats(0.05, 0.45), st.floats(0.05, 0.45), st.integers(0, 2**70))
def test_every_row_is_in_one_split_and_sizes_are_exact(n, validation, test, seed):
    parts = carve(n, {"validation": validation, "test": test}, seed)
    assert len(parts["validation"]) == round(n * validation)
    assert len(parts["test"]) == round(n * test)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(n))
    assert all((np.diff(rows) > 0).all() for rows in parts.values())


def rounded_one_by_one(quotas, most, total):
    counts = np.minimum(np.floor(quotas).astype(np.int64), most)
    for _ in range(total - counts.sum()):
        counts[np.argmax(np.where(counts < most, quotas - counts, -np.inf))] += 1
    return counts


@given(st.lists(st.tuples(st.floats(0, 9), st.integers(0, 12)), min_size=1, max_size=9), st.floats(0, 1))
def test_rounding_takes_the_largest_remainders_one_by_one(strata, share):
    quotas, most = np.array([quota for quota, _ in strata]), np.array([most for _, most in strata])
    total = round(share * int(most.sum()))
    assert _rounded(quotas, most, total).tolist() == rounded_one_by_one(quotas, most, total).tolist()


def test_many_strata_are_carved_in_few_steps(monkeypatch):
    calls = []
    for name in ("argsort", "argmax"):  # each looks at all strata
        real = getattr(np, name)
        monkeypatch.setattr(np, name, lambda *given, real=real, **more: calls.append(real) or real(*given, **more))
    strata = np.concatenate([np.arange(20_000), np.zeros(80_000, dtype=np.int64)])
    parts = carve(100_000, {"validation": 0.1, "test": 0.1}, 0, strata)
    assert len(parts["validation"]) == len(parts["test"]) == 10_000 and len(calls) <= 6


def test_the_draw_of_a_seed_never_changes():
    first = {split: rows.tolist() for split, rows in carve(10, {"validation": 0.2, "test": 0.3}, 42).items()}
    assert first == {"validation": VALIDATION_42, "test": TEST_42, "train": TRAIN_42}
    assert carve(1000, {"test": 0.5}, 1)["test"].tolist() != carve(1000, {"test": 0.5}, 2)["test"].tolist()


def test_the_draw_favours_no_part_of_the_file():
    drawn = np.concatenate([carve(100, {"test": 0.2}, seed)["test"] for seed in range(500)])
    # 500 * 20 draws over 4 quarters: 2500 each, standard deviation below 40.
    assert np.abs(np.histogram(drawn, bins=4, range=(0, 100))[0] - 2500).max() < 200


def test_splits_are_carved_in_the_order_of_the_file():
    found = assembled(carving(train="all"), {"all": records(10)})
    assert found["validation"] == [f"a{row}" for row in VALIDATION_42]
    assert found["test"] == [f"a{row}" for row in TEST_42]
    assert found["train"] == [f"a{row}" for row in TRAIN_42]


def test_given_splits_are_taken_as_they_are():
    files = {"tr": records(3), "va": records(1, "b"), "te": records(2, "c")}
    found = assembled(carving(validation="va", test="te"), files)
    assert found == {"train": ["a0", "a1", "a2"], "validation": ["b0"], "test": ["c0", "c1"]}


def test_one_split_can_be_given_and_another_carved():
    files = {"tr": records(10), "te": records(2, "c")}
    found = assembled(carving(validation=0.3, test="te"), files)
    assert [len(ids) for ids in found.values()] == [7, 3, 2]
    assert sorted(found["train"] + found["validation"]) == [f"a{row}" for row in range(10)]
    assert found["test"] == ["c0", "c1"]


@pytest.mark.parametrize(
    ("splits", "counts", "message"),
    [
        (
            {"validation": "va", "test": "te"},
            {"tr": 1, "va": 0, "te": 1},
            "splits.validation: there is no example in 'va'",
        ),
        ({"validation": "va", "test": "te"}, {"tr": 0, "va": 1, "te": 1}, "splits.train: there is no example in 'tr'"),
        ({"validation": 0.1, "test": 0.5}, {"tr": 4}, r"splits.validation: too few examples \(4\) in train's file"),
        ({"validation": 0.5, "test": 0.4}, {"tr": 0}, r"splits.validation: too few examples \(0\) in train's file"),
        ({"validation": 0.48, "test": 0.48}, {"tr": 4}, r"splits.train: too few examples \(4\) in train's file"),
    ],
)
def test_an_empty_split_is_refused(splits, counts, message):
    files = {pattern: records(n) for pattern, n in counts.items()}
    with pytest.raises(UserError, match=f"^{message}"):
        assembled(carving(**splits), files)


def test_own_splits_follow_the_three_and_null_ones_are_left_out():
    class WithDocuments(Splits):
        documents: str | None
        more: str | None

    files = {"tr": records(10), "docs": records(2, "d")}
    splits = WithDocuments(**carving().model_dump(), documents="docs", more=None)
    assert {split: len(ids) for split, ids in assembled(splits, files).items()} == {
        "train": 5,
        "validation": 2,
        "test": 3,
        "documents": 2,
    }
    with pytest.raises(UserError, match=r"^splits.documents: there is no example in 'docs'"):
        assembled(splits, files | {"docs": []})


# --- strata -------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=12).filter(lambda sizes: sum(sizes) >= 40 * len(sizes)),
    st.floats(0.05, 0.45),
    st.floats(0.05, 0.45),
    st.integers(0, 2**70),
)
def test_strata_are_split_in_proportion_with_exact_sizes(sizes, validation, test, seed):
    strata = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(0).shuffle(strata)
    fractions = {"validation": validation, "test": test}
    parts = carve(len(strata), fractions, seed, strata)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(strata)))
    assert (np.bincount(strata[parts["train"]], minlength=len(sizes)) >= 1).all()
    for split, fraction in fractions.items():
        assert len(parts[split]) == round(len(strata) * fraction)
        drawn = np.bincount(strata[parts[split]], minlength=len(sizes))
        large = np.array(sizes) >= 40  # train's last row of a small stratum is not given away
        assert (np.abs(drawn - np.array(sizes) * fraction)[large] < 2).all()


def test_the_largest_remainders_are_rounded_up():
    # 14 * 0.25 = 3.5, of the four values 5, 4, 3, 2: 1.25, 1.0, 0.75, 0.5; round(3.5) is 4: one more to c, one to d.
    labels = [*"aaaaabbbbcccdd"]
    found = assembled(carving("label", validation=0.25, test="te"), {"tr": labelled(labels), "te": records(1)})
    assert Counter(labels[int(row)] for row in found["validation"]) == {"a": 1, "b": 1, "c": 1, "d": 1}


def test_one_stratum_is_carved_as_none():
    without, one = (carve(100, {"validation": 0.1, "test": 0.3}, 7, strata) for strata in (None, np.zeros(100, int)))
    assert {split: rows.tolist() for split, rows in without.items()} == {
        split: rows.tolist() for split, rows in one.items()
    }


def test_the_stratified_draw_of_a_seed_never_changes():
    labels = [*"aaabbbbbbbbb"]
    # a: 0.6 and 0.9 of 3, b: 1.8 and 2.7 of 9; sizes 2 and 4.
    found = assembled(carving("label"), {"tr": labelled(labels)})
    assert found == {
        "train": ["0", "2", "5", "6", "7", "11"],
        "validation": ["4", "8"],
        "test": ["1", "3", "9", "10"],
    }


@pytest.mark.parametrize("values", [[0, 1], ["0", 0], [["x"], ["x", "y"]], [None, 1.5], [{"a": 1}, {"a": 2}]])
def test_strata_are_any_values_that_json_tells_apart(values):
    labels = [values[number % 2] for number in range(40)]
    found = assembled(carving("label", validation=0.25, test=0.25), {"tr": labelled(labels)})
    for rows in found.values():
        assert sum(int(row) % 2 for row in rows) == len(rows) / 2


def test_a_value_that_stands_once_stays_in_train():
    labels = [*"aaaaaaaaab"]
    for seed in range(20):
        found = assembled(carving("label", validation=0.4, test=0.4, seed=seed), {"tr": labelled(labels)})
        assert "9" in found["train"]


def test_neither_order_nor_repetitions_of_a_list_make_a_stratum():
    # If order or repetitions counted, the first ten would be ten strata, and each would stay in train.
    given = [list(order) for order in islice(permutations("abcd"), 9)] + [list("abcda")] + [["e"]] * 10
    for seed in range(5):
        found = assembled(carving("label", validation=0.2, test=0.2, seed=seed), {"tr": labelled(given)})
        assert {split: sum(int(row) < 10 for row in rows) for split, rows in found.items()} == {
            "train": 6,
            "validation": 2,
            "test": 2,
        }
        assert {split: len(rows) for split, rows in found.items()} == {"train": 12, "validation": 4, "test": 4}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (carving("lable"), "splits.stratify: a:0 has no column 'lable'; the columns there are label$"),
        (carving("label"), "splits.stratify: train would not keep one example of each of the 8 values in the 10 ex"),
        (carving("label", validation=0.01, test=0.01), r"splits.validation: too few examples \(10\) in train's"),
    ],
)
def test_strata_that_cannot_be_are_refused(splits, message):
    files = {"tr": labelled([*"aaabcdefgh"]), "va": records(1), "te": records(1)}
    with pytest.raises(UserError, match=f"^{message}"):
        assembled(splits, files)


# --- groups -------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=60, max_size=120), st.floats(0.1, 0.4), st.integers(0, 2**70), st.data())
def test_a_group_stays_in_one_split_and_sizes_are_kept(sizes, validation, seed, data):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(0).shuffle(groups)
    fractions = {"validation": validation, "test": data.draw(st.floats(0.1, 0.4))}
    parts = carve_groups(groups, fractions, seed)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(len(groups)))
    assert all((np.diff(rows) > 0).all() for rows in parts.values())
    assert sum(len(set(groups[rows].tolist())) for rows in parts.values()) == len(sizes)
    smallest = np.bincount(groups)[groups[parts["train"]]].min()
    for split, fraction in fractions.items():
        # No group that train has would have fitted.
        assert 0 <= round(len(groups) * fraction) - len(parts[split]) < smallest


@given(st.integers(20, 300), st.integers(0, 2**70))
def test_groups_of_one_are_carved_as_rows(n, seed):
    fractions = {"validation": 0.2, "test": 0.3}
    rows, groups = carve(n, fractions, seed), carve_groups(np.arange(n), fractions, seed)
    assert {split: found.tolist() for split, found in rows.items()} == {
        split: found.tolist() for split, found in groups.items()
    }


def test_the_grouped_draw_of_a_seed_never_changes():
    found = assembled(carving(group="of"), {"tr": labelled([*"aabbccddee"], "of")})
    assert found == GROUPS_42
    assert assembled(carving(group="of"), {"tr": labelled([*"vvwwxxyyzz"], "of")}) == GROUPS_42


@pytest.mark.parametrize("values", [[0, 1], ["0", 0], [["x"], ["x", "y"]], [None, 1.5], [{"a": 1}, {"a": 2}]])
def test_groups_are_any_values_that_json_tells_apart(values):
    of = [values[number % 2] for number in range(4)] + list("abcdef")
    found = assembled(carving(group="of", validation="va"), {"tr": labelled(of, "of"), "va": records(1)})
    assert [len(found[split]) for split in ("train", "test")] == [7, 3]
    assert all(
        len({"0", "2"} & set(rows)) in (0, 2) and len({"1", "3"} & set(rows)) in (0, 2) for rows in found.values()
    )


@pytest.mark.parametrize(
    ("splits", "values", "message"),
    [
        ({"group": "fo"}, "aabbccddee", "splits.group: a:0 has no column 'fo'; the columns there are of$"),
        (
            {"group": "of"},
            "aaaaabbbbb",
            r"splits.group: the groups \(2 in 10 examples of train's file\) are too few or",
        ),
        (
            {"group": "of"},
            "aabbb",
            "splits.group: .* are too few or too large to give validation any; ",
        ),
        ({"group": "of", "validation": 0.3}, "aaabbbbbbb", "splits.group: .* too large to give test any; "),
        ({"group": "of", "validation": 0.49, "test": 0.49}, "abcdefghij", "splits.group: .* to give train any; "),
        ({"group": "of"}, "", r"splits.group: the groups \(0 in 0 examples"),
    ],
)
def test_groups_that_cannot_be_are_refused(splits, values, message):
    with pytest.raises(UserError, match=f"^{message}"):
        assembled(carving(**splits), {"tr": labelled([*values], "of"), "va": records(1), "te": records(1)})


def test_groups_and_strata_do_not_go_together():
    with pytest.raises(ValidationError, match="stratify 'label' and group 'of': .*; expected null for one of them"):
        carving("label", group="of")
