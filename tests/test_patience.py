"""When a run stops for want of a better epoch, from what it has reported."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetrail.training.patience import is_over

AN_EPOCH = 2  # updates
FALLS, RISES = [0.9, 0.8, 0.7, 0.6, 0.5], [0.5, 0.6, 0.7, 0.8, 0.9]


def reports(values: list[float], validation: list[float], train: list[float]) -> list[tuple[int, dict[str, float]]]:
    """Return what an engine reports of epochs: two points of the loss curve each, with the mean `train`."""
    found: list[tuple[int, dict[str, float]]] = []
    for epoch, (value, of_validation, of_train) in enumerate(zip(values, validation, train, strict=True), start=1):
        found.append((epoch * AN_EPOCH - 1, {"loss": of_train + 0.3, "grad_norm": 1.0}))
        found.append((epoch * AN_EPOCH, {"loss": of_train - 0.3, "grad_norm": 1.0}))
        found.append((epoch * AN_EPOCH, {"eval_f1": value, "eval_loss": of_validation}))
    return found


def stops_after(values: list[float], validation: list[float], train: list[float], patience: int = 2) -> int | None:
    """Return the epoch after which the run would stop; None if it continues."""
    whole = reports(values, validation, train)
    for epoch in range(1, len(values) + 1):
        if is_over(whole[: 3 * epoch], "f1", True, patience):
            return epoch
    return None


@pytest.mark.parametrize(
    ("values", "validation", "train", "expected"),
    [
        ([0, 0, 0, 0, 0], FALLS, RISES, None),
        ([0, 0, 0, 0, 0], RISES, FALLS, None),
        ([0, 0, 0, 0, 0], RISES, RISES, 3),
        ([0, 0, 0, 0, 0], [0.5] * 5, [0.4] * 5, 3),
        ([0, 0, 0, 0.1, 0.2], FALLS, FALLS, None),
        # Once something is right, only the metric counts, whatever it falls to.
        ([0.1, 0, 0, 0, 0], FALLS, FALLS, 3),
        ([0, 0.1, 0.1, 0.1, 0.1], FALLS, FALLS, 4),
        ([0.3, 0.3, 0.4, 0.3, 0.2], FALLS, FALLS, 5),
        # A fall that does not reach below the lowest value does not count.
        ([0, 0, 0, 0, 0], [0.5, 0.9, 0.8, 0.7, 0.6], RISES, 3),
        # A score below 0, such as a correlation, is not the start.
        ([-0.1, -0.2, -0.2, -0.2, -0.2], FALLS, FALLS, 3),
    ],
)
def test_a_score_of_0_is_waited_for_while_the_loss_falls(
    values: list[float], validation: list[float], train: list[float], expected: int | None
) -> None:
    assert stops_after(values, validation, train) == expected


def test_a_loss_of_0_is_no_start() -> None:
    found = reports([0, 0, 0], FALLS[:3], FALLS[:3])
    assert is_over(found, "f1", best_is_highest=False, patience=2)
    assert not is_over(found, "f1", best_is_highest=True, patience=2)
    assert not is_over(found, "f1", best_is_highest=False, patience=None)


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, max_size=8), st.integers(1, 4))
def test_above_0_it_counts_the_epochs_since_the_best(values: list[float], patience: int) -> None:
    losses = [1.0] * len(values)
    since = len(values) - 1 - values.index(max(values))
    assert is_over(reports(values, losses, losses), "f1", True, patience) == (since >= patience)


def test_the_training_loss_is_the_mean_over_an_epoch() -> None:
    # 3 updates with 0.9 and one with 0.1 are 0.7 on average; then 0.6 in one point; the last point of each is not it.
    points = [(3, {"loss": 0.9}), (4, {"loss": 0.1}), (4, {"eval_f1": 0, "eval_loss": 1}), (8, {"loss": 0.6})]
    points += [(8, {"eval_f1": 0, "eval_loss": 1})]
    assert not is_over(points, "f1", True, 1)
