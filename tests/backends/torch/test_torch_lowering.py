"""Lowered modules of PyTorch take what the plain ones take, and refuse what they refuse."""

from __future__ import annotations

import copy
from typing import Any

import pytest

pytestmark = pytest.mark.needs("torch")


def test_lowered_modules_are_called_as_plain_ones() -> None:
    import torch
    from multiseg_torch.lowering import lower
    from torch import nn

    class Own(nn.Conv2d):
        """A user's, which may compute something else."""

    torch.manual_seed(0)
    down, up = nn.Conv2d(3, 4, 6, stride=6, padding="valid"), nn.ConvTranspose2d(3, 4, (6, 9), stride=(6, 9))
    plain = nn.ModuleDict({"down": down, "up": up, "small": nn.Conv2d(3, 4, 2, stride=2), "own": Own(3, 4, 6, 6)})
    lowered = copy.deepcopy(plain)
    assert lower(lowered) == ["down", "up"]
    image = torch.randn(3, 13, 20)
    assert torch.equal(lowered["down"](image), down(image))  # without a batch
    grid = torch.randn(2, 3, 2, 2)
    assert lowered["up"](grid, output_size=[15, 25]).shape == up(grid, output_size=[15, 25]).shape == (2, 4, 15, 25)
    for name, wrong in (
        ("down", torch.zeros(2, 3, 5, 9)),
        ("down", torch.zeros(2, 6, 6, 6)),
        ("up", torch.zeros(2, 1, 6, 6)),
    ):
        with pytest.raises(RuntimeError) as expected:
            plain[name](wrong)
        with pytest.raises(RuntimeError) as found:
            lowered[name](wrong)
        assert str(found.value) == str(expected.value)


def test_outputs_of_lowered_layers_can_be_changed_in_place() -> None:
    """Without a bias, the output of a product is what a skip connection adds to, or an activation replaces."""
    import torch
    from multiseg_torch.lowering import lower
    from torch import Tensor, nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down = nn.Conv2d(3, 4, 8, stride=8, bias=False)
            self.up = nn.ConvTranspose2d(4, 3, 8, stride=8, bias=False)
            self.wide = nn.ConvTranspose2d(4, 3, 16, stride=8, padding=4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            grid = self.down(x).relu_()
            output = self.wide(grid)
            output += self.up(grid).mul_(2)
            output[:, 1:] *= x[:, 1:]
            return output.tanh_()

    torch.manual_seed(0)
    plain = Net()
    lowered = copy.deepcopy(plain)
    assert lower(lowered) == ["down", "up", "wide"]
    for order in (torch.contiguous_format, torch.channels_last):
        image = torch.randn(2, 3, 16, 24)
        for model in (plain, lowered):
            model.to(memory_format=order).zero_grad()
            model(image.contiguous(memory_format=order)).square().sum().backward()
        for one, other in zip(plain.parameters(), lowered.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)


def test_gradients_of_gradients_go_through_products() -> None:
    import torch
    from multiseg_torch.lowering import lower
    from torch import nn

    plain = nn.Sequential(
        nn.Conv2d(2, 4, 6, stride=6, groups=2), nn.Tanh(), nn.ConvTranspose2d(4, 2, 6, stride=6), nn.Tanh(),
        nn.ConvTranspose2d(2, 1, 16, stride=8, padding=3),
    )  # fmt: skip
    lowered = copy.deepcopy(plain)
    assert lower(lowered) == ["0", "2", "4"]
    x, found = torch.randn(2, 2, 12, 12), []
    for model in (plain.double(), lowered.double()):
        image = x.double().requires_grad_()
        (slope,) = torch.autograd.grad(model(image).square().sum(), image, create_graph=True)
        slope.square().sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_second_factors_of_onednn_have_no_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one window, patches of some channels and gradients of a part of a concatenation are views with gaps."""
    import torch
    from multiseg_torch.lowering import lower, products
    from torch import Tensor, nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.up = nn.Conv2d(2, 5, 12, stride=12), nn.ConvTranspose2d(5, 2, 12, stride=12)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([x, self.up(self.down(x[:, 1:]))], 1)

    onednn, factors = products.ONEDNN, []

    def noted(a: Tensor, b: Tensor, *settings: Any) -> Tensor:
        factors.append(b)
        result: Tensor = onednn(a, b, *settings)
        return result

    monkeypatch.setattr(products, "ONEDNN", noted)
    monkeypatch.setattr(products, "MKL_IS_FAST", False)
    torch.manual_seed(0)
    plain = Net()
    lowered = copy.deepcopy(plain)
    assert lower(lowered) == ["down", "up"]
    image = torch.randn(4, 3, 12, 12)
    for model in (plain, lowered):
        model(image).square().sum().backward()
    assert len(factors) == 5  # two outputs, two gradients of weights, one of inputs: the image needs none
    assert all(each.is_contiguous() or each.t().is_contiguous() for each in factors)
    for one, other in zip(plain.parameters(), lowered.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("intel", [False, True])
def test_products_of_few_rows_and_a_large_matrix_are_those_of_float64(
    intel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Around the numbers of rows for which the factors change places, with the library that each make of processor uses."""
    import torch
    from multiseg_torch.lowering import products
    from multiseg_torch.lowering.products import LARGE, ROWS_TO_TURN, multiplied

    monkeypatch.setattr(products, "MKL_IS_FAST", intel)
    torch.manual_seed(0)
    weight = torch.randn(1, 64, LARGE // 64, requires_grad=True)
    for count in (1, ROWS_TO_TURN[0] - 1, ROWS_TO_TURN[0], ROWS_TO_TURN[-1], ROWS_TO_TURN[-1] + 1):
        rows, slope = torch.randn(1, count, LARGE // 64, requires_grad=True), torch.randn(1, count, 64)
        made = multiplied(rows, weight)
        found = [made, *torch.autograd.grad(made, [rows, weight], slope)]
        a, b, g = rows.detach().double(), weight.detach().double(), slope.double()
        for one, exact, terms in zip(found, [a @ b.mT, g @ b, g.mT @ a], [LARGE // 64, 64, count], strict=True):
            # float32's rounding of a sum of `terms` products of normal numbers
            assert (one.double() - exact).abs().max() <= 2.0**-23 * terms * 4


@pytest.mark.parametrize("channels", [3, 21])
def test_large_upsampling_is_a_product(channels: int) -> None:
    """The layer of FCN-8s, in both orders in memory, against PyTorch in float64. Scores of few classes are NCHW for the loss."""
    import torch
    from multiseg_torch.lowering import copies_patches, lower
    from torch import nn

    torch.manual_seed(0)
    plain = nn.ConvTranspose2d(5, channels, 16, stride=8, padding=4, output_padding=(2, 0))
    wide, right = copy.deepcopy(plain).double(), torch.randn(2, channels, 26, 48, dtype=torch.float64)
    grid = torch.randn(2, 5, 3, 6, dtype=torch.float64).requires_grad_()
    expected = wide(grid)
    expected.backward(right)
    for order in (torch.contiguous_format, torch.channels_last):
        module = nn.Sequential(copy.deepcopy(plain)).to(memory_format=order)
        assert lower(module) == ["0"] and not copies_patches(module)
        x = grid.detach().float().contiguous(memory_format=order).requires_grad_()
        output = module(x)
        assert output.shape == expected.shape
        assert (output.stride(1) == 1) == (order is torch.channels_last and channels == 21)
        output.backward(right.float())
        for made, exact in zip([output, x.grad, *(p.grad for p in module.parameters())],
                               [expected, grid.grad, *(p.grad for p in wide.parameters())], strict=True):  # fmt: skip
            torch.testing.assert_close(made.double(), exact, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("given", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kernel", [(3, 4, 16, 8), (21, 21, 64, 32)], ids=["small", "large, by few windows"])
def test_gradients_of_upsampling_in_either_order(kernel: tuple[int, int, int, int], given: str) -> None:
    """In float32, with the output's gradient in either order, and gradients of gradients, against PyTorch in float64."""
    import torch
    from multiseg_torch.lowering import lower
    from multiseg_torch.memory_order import ORDERS
    from torch import nn

    torch.manual_seed(0)
    inputs, outputs, size, stride = kernel
    plain = nn.ConvTranspose2d(inputs, outputs, size, stride, bias=False)
    grid, right = torch.randn(2, inputs, 3, 2), torch.randn(2, outputs, 2 * stride + size, stride + size)
    left, below = torch.randn_like(grid), torch.randn_like(plain.weight)

    def gradients(layer: nn.Module, order: str, x: torch.Tensor, slope: torch.Tensor) -> list[torch.Tensor]:
        layer = layer.to(x.dtype).to(memory_format=ORDERS[order])
        x, slope = (
            tensor.contiguous(memory_format=ORDERS[key]).requires_grad_()
            for tensor, key in ((x, order), (slope, given))
        )
        first = torch.autograd.grad(layer(x), [x, layer.weight], slope, create_graph=True)
        vectors = left.to(x.dtype), below.to(x.dtype)
        return [*first, *torch.autograd.grad(first, [x, layer.weight, slope], vectors)]

    exact = [tensor.detach() for tensor in gradients(copy.deepcopy(plain), "NCHW", grid.double(), right.double())]
    for order in ORDERS:
        module = nn.Sequential(copy.deepcopy(plain))
        assert lower(module) == ["0"]
        made = [tensor.detach() for tensor in gradients(module[0], order, grid, right)]
        assert made[1].is_contiguous(memory_format=ORDERS[order])  # as the kernel, so that it is not copied
        for one, expected in zip(made, exact, strict=True):
            torch.testing.assert_close(one.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_upsampling_that_a_product_does_not_compute_or_not_faster_stays() -> None:
    from multiseg_torch.lowering import lower
    from torch import nn

    stay = nn.Sequential(
        nn.ConvTranspose2d(5, 3, 4, stride=2), nn.ConvTranspose2d(5, 3, 12, stride=8),
        nn.ConvTranspose2d(4, 4, 16, stride=8, groups=4), nn.ConvTranspose2d(64, 4, 16, stride=8),
        nn.ConvTranspose2d(5, 3, 16, stride=8, dilation=2), nn.ConvTranspose2d(5, 3, 16, stride=8, output_padding=1),
    )  # fmt: skip
    assert lower(stay) == []


@pytest.mark.parametrize("size", [7, 40], ids=["product", "convolution"])
def test_convolutions_of_one_pixel_are_those_of_float64(size: int) -> None:
    """In NHWC, with few pixels and with many; in NCHW as PyTorch's own. They are not listed."""
    import torch
    from multiseg_torch.lowering import lower, points
    from torch import nn

    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(6, 5, 1), nn.Tanh(), nn.Conv2d(5, 4, 1, bias=False))
    wide, images, right = (
        copy.deepcopy(plain).double(), torch.randn(3, 6, size, size), torch.randn(3, 4, size, size),
    )  # fmt: skip
    assert (3 * size * size > points.MOST_ROWS) == (size == 40)
    exact_images = images.double().requires_grad_()
    expected = wide(exact_images)
    expected.backward(right.double())
    for order in (torch.channels_last, torch.contiguous_format):
        lowered = copy.deepcopy(plain).to(memory_format=order)
        assert lower(lowered) == [] and isinstance(lowered[0], points.PointConv2d)
        given = images.contiguous(memory_format=order).requires_grad_()
        made = lowered(given)
        assert made.is_contiguous(memory_format=order)
        made.backward(right)
        for one, exact in ((made, expected), (given.grad, exact_images.grad), *zip(
                (p.grad for p in lowered.parameters()), (p.grad for p in wide.parameters()), strict=True)):  # fmt: skip
            torch.testing.assert_close(one.double(), exact, rtol=1e-5, atol=1e-4)


def test_convolutions_of_one_pixel_refuse_what_plain_ones_refuse() -> None:
    import torch
    from multiseg_torch.lowering import lower
    from torch import nn

    plain = nn.Sequential(nn.Conv2d(6, 5, 1))
    lowered = copy.deepcopy(plain)
    lower(lowered)
    for shape in ((2, 3, 8, 8), (2, 12, 8, 8), (2, 6)):
        wrong = torch.zeros(shape)
        wrong = wrong.contiguous(memory_format=torch.channels_last) if wrong.dim() == 4 else wrong
        with pytest.raises(RuntimeError) as expected:
            plain(wrong)
        with pytest.raises(RuntimeError) as found:
            lowered(wrong)
        assert str(found.value) == str(expected.value)
    stay = nn.Sequential(
        nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 1, padding=1),
        nn.Conv2d(4, 4, (1, 3)),
    )  # fmt: skip
    lower(stay)
    assert all(type(module) is nn.Conv2d for module in stay)
