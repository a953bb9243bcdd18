"""Networks of torch itself, where it is installed: `.ci/python all` and `cargo xtask notebooks` install it."""

import warnings

import numpy as np
import pytest

import bitpact

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

MEANING = ([0.5], [0.25])


def own():
    torch.manual_seed(1)
    nn = torch.nn
    body = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3), nn.ReLU6()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5))


def real(images):
    return ((torch.tensor(images) / 255 - 0.5) / 0.25).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)


def test_modules_that_the_zoo_does_not_have_go_through_onnx(images):
    net = own()
    with torch.no_grad():
        net(real(images))
    net[1].eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = bitpact.Model.from_torch(net, example=real(images[:1]), input=MEANING)
    assert [part.training for part in net[:3]] == [True, False, True] and net.training
    net.eval()
    with torch.no_grad():
        expected = net(real(images)).numpy()
    found = model.ptq(images, "W8A8", steps="none", threads=1).convert().logits(images, real=True)
    assert np.abs(found - expected).max() < 0.03 * np.ptp(expected)
    same = bitpact.Model.from_torch(net, example=real(images[:1]).numpy(), input=MEANING)
    for name, tensor in same.tensors().items():
        np.testing.assert_array_equal(tensor, model.tensors()[name])


def test_tensors_are_arrays(images):
    net = own().eval()
    model = bitpact.Model.from_torch(net, example=real(images[:1]), input=MEANING)
    integers = model.ptq(torch.tensor(images), "W8A8", steps="none", threads=1).convert()
    expected = integers.logits(images)
    for same in (torch.tensor(images), torch.tensor(images).permute(0, 3, 1, 2)):
        np.testing.assert_array_equal(integers.logits(same), expected)
    # The zero point is 127.5, rounded.
    codes = integers.quantize(real(images).permute(0, 2, 3, 1).requires_grad_())
    np.testing.assert_allclose(codes.astype(int), images, atol=1)


@pytest.mark.parametrize("width", ["float32", "float16", "bfloat16"])
def test_state_dicts_of_every_width_are_read(width):
    models = pytest.importorskip("torchvision").models
    net = models.resnet18(num_classes=4).to(getattr(torch, width))
    keys = {"arch": "resnet18", "input_shape": (32, 32, 3), "input": "imagenet"}
    model = bitpact.Model.from_torch(net, **keys)
    for name, tensor in net.state_dict().items():
        if name in model.tensors():
            np.testing.assert_array_equal(model.tensors()[name], tensor.float().numpy())
    again = bitpact.Model.from_torch(torch.nn.DataParallel(net).state_dict(), **keys)
    assert again.tensors().keys() == model.tensors().keys()


def test_what_cannot_be_exported_or_read_is_told(images):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.fft.fft(x).real.sum((2, 3))

    with pytest.raises(RuntimeError, match="fft"):
        bitpact.Model.from_torch(Odd(), example=real(images[:1]))
    cosine = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 5), torch.nn.LayerNorm(5), torch.nn.Softplus())
    with pytest.raises(bitpact.BitpactError, match="the module as ONNX: "):
        bitpact.Model.from_torch(cosine, example=real(images[:1]))
    with pytest.raises(RuntimeError, match="channels"):
        bitpact.Model.from_torch(own(), example=real(images[:1])[:, :2])
