"""Recorded passes, with a stand-in for CUDA's graphs that computes the same function on the same buffers again."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import dropout

from finetrail.training import graphs
from finetrail.training.graphs import Recorded


class Again:
    """Records by calling a function some times, and replays by calling it again, its result in place."""

    def __init__(self) -> None:
        self.recorded = 0

    def __call__(self, run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        self.recorded += 1
        for _ in range(graphs.WARM_UP):
            run()
        result = run()
        return result, lambda: result.copy_(run())


class Model(nn.Module):
    """Two layers with dropout, and a weight that nothing reaches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.unused = nn.Linear(3, 4), nn.Linear(4, 1), nn.Linear(2, 2)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.second(dropout(self.first(values), 0.4)).square().mean()


def plain(model: Model) -> graphs.Pass:
    def run(inputs: dict[str, Any], weight: torch.Tensor) -> torch.Tensor:
        loss = model(inputs["packing"]["values"]) * weight
        loss.backward()
        return loss.detach()

    return run


def inputs(rows: int, seed: int) -> dict[str, Any]:
    values = torch.randn(rows, 3, generator=torch.Generator().manual_seed(seed))
    return {"packing": {"values": values, "longest": 3}}


def train(model: Model, run: graphs.Pass, zero_to_none: bool = True) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Train five updates of two batches each, of two shapes in turn; return the losses and the weights."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    torch.manual_seed(1)
    losses = []
    for update in range(5):
        for part in range(2):
            weight = torch.tensor(0.3 + part)  # a number of the CPU, as the engines give it
            losses.append(run(inputs(5 + (update + part) % 2, 10 * update + part), weight))
        optimizer.step()
        optimizer.zero_grad(set_to_none=zero_to_none)
    return [loss.item() for loss in losses], model.state_dict()


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record the first batch of a shape."""
    monkeypatch.setattr(graphs, "PLAIN_FIRST", 0)


@pytest.mark.parametrize("plain_first", [0, 1, 2])
@pytest.mark.parametrize("zero_to_none", [True, False])
def test_losses_weights_and_draws_are_those_of_plain_passes(
    zero_to_none: bool, plain_first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphs, "PLAIN_FIRST", plain_first)
    one, other, again = Model(), Model(), Again()
    expected, weights = train(one, plain(one), zero_to_none)
    drawn = torch.rand(3)
    found, same = train(other, Recorded(plain(other), other.parameters(), again), zero_to_none)
    assert found == expected
    assert all(torch.equal(weights[name], same[name]) for name in weights)  # what nothing reaches does not decay
    assert torch.equal(torch.rand(3), drawn)
    assert again.recorded == 2


@pytest.mark.usefixtures("at_once")
def test_a_loss_stays_when_the_next_pass_is_replayed() -> None:
    model = Model()
    run = Recorded(plain(model), model.parameters(), Again())
    first = run(inputs(5, 1), torch.tensor(1.0))
    value = first.item()
    run(inputs(5, 2), torch.tensor(1.0))
    assert first.item() == value


@pytest.mark.usefixtures("at_once")
def test_a_recording_is_keyed_by_shapes_types_and_numbers() -> None:
    model, again = Model(), Again()
    run = Recorded(plain(model), model.parameters(), again)
    other = inputs(5, 1)
    other["packing"]["longest"] = 4
    for batch in (inputs(5, 1), inputs(5, 2), inputs(6, 1), other, inputs(5, 3)):
        run(batch, torch.tensor(1.0))
    assert again.recorded == 3


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("wrong_part", ["loss", "norm of a gradient"])
def test_a_wrong_recording_is_refused_and_changes_nothing(wrong_part: str) -> None:
    model = Model()

    def wrong(run: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Callable[[], None]]:
        result = run()

        def replay() -> None:
            if wrong_part == "loss":
                result.add_(run())
            else:  # the loss alone, as if the gradients went elsewhere
                result.copy_(run())
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter.grad.zero_()

        return result, replay

    run = Recorded(plain(model), model.parameters(), wrong)
    before = torch.ones_like(model.first.weight)
    model.first.weight.grad = before.clone()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    with pytest.raises(graphs.Failed, match=rf"^the recorded {wrong_part} is \d.*, and was \d"):
        run(inputs(5, 1), torch.tensor(1.0))
    assert model.first.weight.grad is not None and torch.equal(model.first.weight.grad, before)
    assert model.second.weight.grad is None
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("at_once")
def test_a_failed_recording_is_an_error_out_of_memory_stays() -> None:
    model = Model()

    def fails(error: Exception) -> graphs.Recorder:
        def record(run: Callable[[], torch.Tensor]) -> Any:
            raise error

        return record

    with pytest.raises(graphs.Failed, match=r"^operation not permitted$"):
        Recorded(plain(model), model.parameters(), fails(RuntimeError("operation not permitted\nmore")))(
            inputs(5, 1), torch.tensor(1.0)
        )
    with pytest.raises(torch.OutOfMemoryError):
        Recorded(plain(model), model.parameters(), fails(torch.OutOfMemoryError("no memory")))(
            inputs(5, 1), torch.tensor(1.0)
        )


def test_what_comes_rarely_is_not_recorded() -> None:
    model, again = Model(), Again()
    run = Recorded(plain(model), model.parameters(), again)
    for rows in (1, 2, 3, 1, 2, 1):
        run(inputs(rows, rows), torch.tensor(1.0))
    assert again.recorded == 1


@pytest.mark.usefixtures("at_once")
def test_no_more_shapes_are_recorded_than_memory_shall_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST_RECORDINGS", 2)
    model, again = Model(), Again()
    run = Recorded(plain(model), model.parameters(), again)
    losses = [run(inputs(rows, rows), torch.tensor(1.0)) for rows in (1, 2, 3, 1, 3)]
    assert again.recorded == 2 and all(loss.isfinite() for loss in losses)


@pytest.mark.usefixtures("at_once")
def test_a_loss_that_is_not_finite_is_recorded_as_such() -> None:
    model = Model()
    batch = inputs(5, 1)
    batch["packing"]["values"][0, 0] = torch.nan
    assert Recorded(plain(model), model.parameters(), Again())(batch, torch.tensor(1.0)).isnan()
