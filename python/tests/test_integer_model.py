"""The integer network: what goes in, what comes out, and what is refused."""

import mmap
import pickle
import shutil
import subprocess
import threading

import numpy as np
import pytest

import bitpact


@pytest.fixture
def images(data):
    return data[1][0]


def test_outputs_agree_with_each_other(integers, images):
    outputs = integers.run(images)
    (name,) = outputs
    logits = integers.logits(images)
    assert logits.dtype == np.int64 and logits.shape == (48, 4)
    np.testing.assert_array_equal(outputs[name], logits)
    np.testing.assert_array_equal(integers.classes(images), logits.argmax(axis=1))
    np.testing.assert_array_equal(integers.codes(integers.layers[-1], images).reshape(48, 4), logits)
    meaning = integers.outputs[0]
    real = meaning["scale"] * (logits - meaning["zero"])
    np.testing.assert_array_equal(integers.run(images, real=True)[name], real)
    np.testing.assert_array_equal(integers.logits(images, real=True), real)


def test_codes_of_every_layer_have_its_shape(integers, images):
    for layer in integers.layers:
        codes = integers.codes(layer, images[:3])
        assert codes.dtype == np.int64 and codes.ndim == 4 and len(codes) == 3
    with pytest.raises(bitpact.BitpactValueError, match="no layer is named `x`; the layers are "):
        integers.codes("x", images)


def test_every_layout_in_memory_gives_the_same(integers, images):
    expected = integers.logits(images)
    wide = np.zeros((48, 8, 16), dtype=np.uint8)
    wide[:, :, ::2] = images
    frozen = images.copy()
    frozen.setflags(write=False)
    for same in (
        images[..., None],
        images[:, None],
        np.asfortranarray(images),
        wide[:, :, ::2],
        images[::-1][::-1],
        frozen,
        memoryview(images),
    ):
        np.testing.assert_array_equal(integers.logits(same), expected)
    np.testing.assert_array_equal(integers.logits(images[0]), expected[:1])


def test_batches_of_several_portions_are_whole(integers, images):
    # As many as integer.rs computes between two looks for Ctrl-C.
    portion = 2**31 // sum(filter(None, integers.inspect()["macs"]))
    turns = portion // len(images) + 2
    many = np.tile(images, (turns, 1, 1))
    assert len(many) > portion
    expected = integers.logits(images)
    np.testing.assert_array_equal(integers.logits(many), np.tile(expected, (turns, 1)))
    (name,) = integers.run(images)
    np.testing.assert_array_equal(integers.run(many)[name], np.tile(expected, (turns, 1)))
    np.testing.assert_array_equal(integers.classes(many), np.tile(expected.argmax(axis=1), turns))
    layer = integers.layers[-1]
    np.testing.assert_array_equal(integers.codes(layer, many).reshape(-1, 4), np.tile(expected, (turns, 1)))


def test_arrays_in_files_are_read_while_the_files_are_open(integers, images, tmp_path):
    path = tmp_path / "images"
    path.write_bytes(images.tobytes())
    expected = integers.logits(images)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
        file.close()
        view = memoryview(whole).cast("B", images.shape)
        np.testing.assert_array_equal(integers.logits(view), expected)
        view.release()
        with pytest.raises(ValueError, match=r"the shape \(\)"):
            integers.logits(view)
    np.testing.assert_array_equal(integers.logits(np.memmap(path, mode="r", shape=images.shape)), expected)
    np.save(tmp_path / "images.npy", images)
    np.testing.assert_array_equal(integers.logits(np.load(tmp_path / "images.npy", mmap_mode="r")), expected)


def test_channels_first_is_channels_last_turned(tmp_path):
    random = np.random.default_rng(3)
    x = random.integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
    y = random.integers(0, 2, 32)
    short = {"epochs": 1, "warmup_epochs": 0, "batch_size": 16, "compare_float": False}
    integers = bitpact.train(train=(x, y), test=(x, y), output=tmp_path / "run", **short).integers
    np.testing.assert_array_equal(integers.logits(x), integers.logits(x.transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(integers.logits(x[0]), integers.logits(x[0].transpose(2, 0, 1)))


class Tensor:
    """What torch's tensors look like from outside."""

    def __init__(self, array, place="cuda"):
        self.array, self.place = array, place

    def detach(self):
        return Tensor(self.array, self.place)

    def cpu(self):
        return Tensor(self.array, "cpu")

    def __array__(self, dtype=None, copy=None):
        assert self.place == "cpu"
        return self.array


class Exported:
    """An array of another library, which only speaks DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_arrays_of_other_libraries_are_read(integers, images):
    expected = integers.logits(images)
    np.testing.assert_array_equal(integers.logits(Tensor(images)), expected)
    np.testing.assert_array_equal(integers.logits(Exported(images)), expected)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (np.zeros((2, 8, 8)), "the images are float64; expected uint8"),
        (np.zeros((2, 8, 8), dtype=np.int64), "the images are int64"),
        (np.zeros((2, 8, 8), dtype=np.uint16), "the images are uint16"),
        (np.zeros((2, 8, 8), dtype=bool), "the images are bool"),
        (np.zeros((2, 8, 8), dtype=object), "the images are object"),
        (np.zeros((2, 8, 9), dtype=np.uint8), r"have the shape \(2, 8, 9\); expected \(n, 8, 8, 1\)"),
        (np.zeros((2, 8), dtype=np.uint8), r"the shape \(2, 8\)"),
        (np.zeros((64,), dtype=np.uint8), r"the shape \(64,\)"),
        (np.uint8(3), r"the shape \(\)"),
        (np.zeros((0, 8, 8), dtype=np.uint8), "which holds none"),
        (np.zeros((1, 2, 8, 8, 1), dtype=np.uint8), "the shape"),
        (None, "the images"),
        ("images", "the images"),
        ([[1, 2], [3]], None),
    ],
)
def test_wrong_images_are_told(integers, wrong, text):
    for method in (integers.run, integers.logits, integers.classes, integers.verify):
        with pytest.raises(ValueError, match=text):
            method(wrong)


def test_real_values_become_codes(integers):
    scale, zero = 0.015625, 128
    x = np.array([[[-3.0, 0.0, 0.02, 5.0, np.nan, 1.0, -1.0, 0.0]] * 8], dtype=np.float32)
    codes = integers.quantize(x)
    assert codes.dtype == np.uint8 and codes.shape == x.shape
    np.testing.assert_array_equal(codes[0, 0], [0, zero, zero + 1, 255, zero, zero + round(1 / scale), zero - 64, zero])
    with pytest.raises(ValueError, match="float32"):
        integers.quantize(np.zeros((8, 8), dtype=np.uint8))
    with pytest.raises(ValueError, match="expected a multiple of the 64"):
        integers.quantize(np.zeros((8, 7)))


def test_one_engine_serves_many_threads(integers, images):
    expected = integers.logits(images)
    layer = integers.layers[0]
    codes = integers.codes(layer, images)
    wrong = []

    def work():
        for _ in range(20):
            if not np.array_equal(integers.logits(images), expected):
                wrong.append("logits")
            if not np.array_equal(integers.codes(layer, images), codes):
                wrong.append("codes")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_files_bytes_and_pickles_hold_the_network(integers, images, tmp_path):
    expected = integers.logits(images)
    path = tmp_path / "model.bitpact"
    integers.save(path)
    assert path.read_bytes() == integers.to_bytes()
    for same in (
        bitpact.IntegerModel.load(path, threads=1),
        bitpact.IntegerModel.load(str(path)),
        bitpact.IntegerModel.from_bytes(integers.to_bytes()),
        pickle.loads(pickle.dumps(integers)),
    ):
        np.testing.assert_array_equal(same.logits(images), expected)


def test_files_that_hold_no_network_are_told(integers, tmp_path):
    with pytest.raises(OSError, match="none.bitpact"):
        bitpact.IntegerModel.load(tmp_path / "none.bitpact")
    damaged = tmp_path / "damaged.bitpact"
    data = bytearray(integers.to_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(bitpact.BitpactValueError, match="damaged.bitpact: .*damaged"):
        bitpact.IntegerModel.load(damaged)
    for cut in range(0, len(data), 97):
        with pytest.raises(bitpact.BitpactError):
            bitpact.IntegerModel.from_bytes(bytes(data[:cut]))
    with pytest.raises(OSError):
        integers.save(tmp_path / "no" / "folder" / "model.bitpact")
    with pytest.raises(TypeError):
        with open(damaged, "rb") as file:
            pass
        bitpact.IntegerModel.load(file)
    for threads in (0, 5000):
        with pytest.raises(ValueError, match="threads"):
            bitpact.IntegerModel.from_bytes(integers.to_bytes(), threads=threads)


def test_the_network_is_described(integers):
    assert integers.input_shape == (8, 8, 1) and integers.input_bits == 8
    assert integers.class_names == ["0", "1", "2", "3"]
    (output,) = integers.outputs
    assert output["name"] == integers.layers[-1] and output["shape"] == (1, 1, 4)
    assert integers.arch == "cnn" and "cnn" in repr(integers)
    table = integers.inspect()
    assert {len(column) for column in table.values()} == {len(table["layer"])}
    assert {"layer", "op", "shape", "weight_bits", "macs", "acc_bits"} <= set(table)
    assert all(isinstance(bits, int) for bits in table["weight_bits"] if bits is not None)


def test_the_layers_as_a_frame(integers):
    pandas = pytest.importorskip("pandas")
    frame = integers.inspect(frame=True)
    assert isinstance(frame, pandas.DataFrame) and list(frame["layer"]) == integers.inspect()["layer"]


def test_every_path_gives_the_same_codes(integers, images):
    found = integers.verify(images[:4], threads=2)
    assert found["different"] == 0 and found["first"] is None and found["images"] == 4
    assert found["codes"] == found["probed"] + sum(path["codes"] for path in found["paths"])


@pytest.mark.parametrize("format", ["onnx-qcdq", "onnx-qdq", "qonnx", "onnx-integer", "npy", "safetensors"])
def test_networks_are_exported(integers, tmp_path, format):
    path = tmp_path / "exported"
    integers.export(format, path)
    assert path.is_dir() if format == "npy" else path.stat().st_size > 1000


def test_unknown_formats_are_told(integers, tmp_path):
    with pytest.raises(bitpact.BitpactValueError, match="expected one of onnx-qcdq.*, c"):
        integers.export("onyx", tmp_path / "x")
    for options in ({"rounded_biases": True}, {"name": "while"}, {"images": np.zeros((2, 3), np.uint8)}):
        with pytest.raises(bitpact.BitpactValueError):
            integers.export("c", tmp_path / "x", **options)
    with pytest.raises(bitpact.BitpactValueError, match="name and images go with c and rust, not npy"):
        integers.export("npy", tmp_path / "x", name="net")
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        integers.export("c", tmp_path / "file" / "x")


def test_c_is_exported_with_its_self_test(integers, images, tmp_path):
    takes = integers.export("c", tmp_path / "net", name="rows", images=images[:3])
    assert takes["name"] == "rows" and takes["flash_bytes"] > 500 and takes["ram_bytes"] > 100 and takes["macs"] > 1000
    names = {path.name for path in (tmp_path / "net").iterdir()}
    assert names == {
        "bitpact_kernels.h", "rows.h", "rows.c", "rows_test.c", "rows.json", "Makefile", "CMakeLists.txt",
    }
    assert integers.export("c", tmp_path / "usual")["name"] == "cnn"
    assert integers.export("rust", tmp_path / "crate", name="rows")["macs"] == takes["macs"]
    assert (tmp_path / "crate" / "src" / "rows.rs").is_file()
    if shutil.which("make") and shutil.which("cc"):
        subprocess.run(["make", "-s", "-C", tmp_path / "net"], check=True)
        subprocess.run(["make", "-s", "-C", tmp_path / "usual"], check=True)
