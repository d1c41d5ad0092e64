"""Matrix products by numpy: torch's values, and the same bytes with any number of threads."""

import math
from collections.abc import Iterator

import pytest
import torch

from finetrail.patches.products import ROWS, use_portable_products

# (rows, inner, columns): none, one, less and more than a block of rows, more than OpenBLAS sums at once.
SHAPES = [(0, 3, 2), (2, 0, 3), (1, 5, 1), (1, 300, 7), (ROWS, 8, 8), (ROWS + 1, 700, 33), (5 * ROWS + 3, 257, 384)]


@pytest.fixture(params=[1, 2, 5])
def portable(request: pytest.FixtureRequest) -> Iterator[None]:
    library = use_portable_products(request.param)
    yield
    library._destroy()


def factors(*shape: int, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    rows, inner, columns = shape
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*batch, *size, generator=generator).to(dtype) for size in ((rows, inner), (inner, columns))]


def exact(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Sum as Python does, which no kernel computes."""
    return (one.double().unsqueeze(-1) * other.double().unsqueeze(-3)).sum(-2)


@pytest.mark.usefixtures("portable")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_products_are_right_for_any_shape_and_type(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    one, other = factors(*shape, dtype=dtype)
    found = one @ other
    assert found.dtype == dtype and found.shape == (shape[0], shape[2])
    tolerance = {torch.float32: 1e-4, torch.float64: 1e-10, torch.bfloat16: 0.5, torch.int64: 0.0}[dtype]
    torch.testing.assert_close(found.double(), exact(one, other), rtol=0, atol=tolerance)


@pytest.mark.usefixtures("portable")
@pytest.mark.parametrize("shape", SHAPES)
def test_batches_of_products_are_right_whatever_the_strides(shape: tuple[int, int, int]) -> None:
    one, other = factors(*shape, batch=(13,))
    expected = exact(one, other)
    for left, right in ((one, other), (one.mT.contiguous().mT, other), (one, other.mT.contiguous().mT)):
        torch.testing.assert_close(torch.bmm(left, right).double(), expected, rtol=0, atol=1e-4)
    heads = one.unflatten(0, (13, 1)).transpose(0, 1)  # as of attention: no copy was made
    torch.testing.assert_close((heads @ other)[0].double(), expected, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("portable")
@pytest.mark.parametrize(("alpha", "beta"), [(1, 1), (0.5, 2), (2, 0)])
def test_what_is_added_is_scaled_as_by_torch(alpha: float, beta: float) -> None:
    one, other = factors(70, 9, 5)
    bias = torch.arange(5.0)
    expected = alpha * exact(one, other) + beta * bias
    torch.testing.assert_close(
        torch.addmm(bias, one, other, alpha=alpha, beta=beta).double(), expected, rtol=0, atol=1e-5
    )
    batched = torch.baddbmm(bias, one[None], other[None], alpha=alpha, beta=beta)
    torch.testing.assert_close(batched[0].double(), expected, rtol=0, atol=1e-5)
    ignored = torch.addmm(torch.full((5,), torch.nan), one, other, beta=0)
    assert ignored.isfinite().all()


@pytest.mark.usefixtures("portable")
def test_whole_numbers_are_exact_and_types_are_not_mixed() -> None:
    large = torch.tensor([[2**24 + 1, 3], [5, 7]])
    assert torch.equal(large @ torch.eye(2, dtype=torch.int64), large)
    with pytest.raises(RuntimeError, match="of the same dtype, got torch.int64 and torch.float32"):
        large @ torch.eye(2)


@pytest.mark.usefixtures("portable")
def test_gradients_are_those_of_finite_differences() -> None:
    layer = torch.nn.Linear(7, 5, dtype=torch.float64)
    inputs = torch.randn(3, 11, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (inputs,))


@pytest.mark.usefixtures("portable")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_square_roots_are_rounded_correctly(dtype: torch.dtype) -> None:
    numbers = torch.arange(100_003).to(dtype)
    found = numbers.sqrt()
    kept = dtype if dtype.is_floating_point else torch.float32
    expected = torch.tensor([math.sqrt(number) for number in numbers.tolist()], dtype=torch.float64).to(kept)
    assert found.dtype == kept and torch.equal(found, expected)
    assert torch.tensor(-1.0).sqrt().isnan() and torch.tensor(4.0, requires_grad=True).sqrt().item() == 2


def test_bytes_are_the_same_with_any_number_of_threads() -> None:
    found = []
    for workers in (1, 2, 3, 8):
        library = use_portable_products(workers)
        with torch.no_grad():
            products = [one @ other for shape in SHAPES for one, other in [factors(*shape)]]
            products += [torch.bmm(*factors(*shape, batch=(24,))) for shape in SHAPES]
        found.append([product.numpy().tobytes() for product in products])
        library._destroy()
    assert all(products == found[0] for products in found)


def test_torch_has_its_own_products_back_when_the_library_goes() -> None:
    one, other = factors(300, 700, 300)
    before = one @ other
    library = use_portable_products(2)
    library._destroy()
    assert torch.equal(one @ other, before)
