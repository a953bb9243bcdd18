"""The networks of the inference comparison, written once and emitted as ONNX or as TensorFlow.

Weights are He-normal (arXiv 1502.01852) from a fixed seed, batch norm counts as folded, biases are small and random. A network is
a function of an emitter; both emitters see the same calls in the same order and so draw the same weights.

Option-A shortcuts are emitted as a 1x1 convolution of stride 2 with a fixed kernel of zeros and ones: the same function as a slice
and a pad, and faster in all three peers, which run those as separate or even as float operations. It adds 0.6 % to ResNet-20's products.
"""
import math
from types import SimpleNamespace

import numpy as np


def resnet20(net):
    """Three stages of three basic blocks, 16/32/64 channels, option-A shortcuts (arXiv 1512.03385, section 4.2)."""
    x = net.conv(net.input, 3, 16, 3, relu=True)
    cin = 16
    for cout in [16] * 3 + [32] * 3 + [64] * 3:
        stride = cout // cin
        y = net.conv(net.conv(x, cin, cout, 3, stride, relu=True), cout, cout, 3)
        x = net.add_relu(y, net.option_a(x, cin, cout) if stride > 1 else x)
        cin = cout
    return net.classify(x, cin)


def imagenet_resnet(net, blocks, expansion):
    """torchvision's layout: basic blocks (expansion 1) or bottlenecks with the stride on the 3x3 (expansion 4)."""
    x = net.max_pool(net.conv(net.input, 3, 64, 7, 2, relu=True))
    cin = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        cout = width * expansion
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            if expansion == 1:
                y = net.conv(net.conv(x, cin, width, 3, stride, relu=True), width, width, 3)
            else:
                y = net.conv(net.conv(x, cin, width, 1, relu=True), width, width, 3, stride, relu=True)
                y = net.conv(y, width, cout, 1)
            x = net.add_relu(y, net.conv(x, cin, cout, 1, stride) if block == 0 and cin != cout else x)
            cin = cout
    return net.classify(x, cin)


NETWORKS = {
    "resnet20": SimpleNamespace(side=32, classes=10, define=resnet20),
    "resnet18": SimpleNamespace(side=224, classes=1000, define=lambda net: imagenet_resnet(net, [2, 2, 2, 2], 1)),
    "resnet50": SimpleNamespace(side=224, classes=1000, define=lambda net: imagenet_resnet(net, [3, 4, 6, 3], 4)),
}


def images(arch, count, seed=7):
    """Random normal images, NCHW float32."""
    side = NETWORKS[arch].side
    return np.random.default_rng(seed).standard_normal((count, 3, side, side), dtype=np.float32)


class Emitter:
    def __init__(self, arch, seed=1):
        self.classes = NETWORKS[arch].classes
        self.rng = np.random.default_rng(seed)

    def draw(self, cin, cout, k):
        """A kernel of shape [cout, cin, k, k] and its bias."""
        kernel = self.rng.standard_normal((cout, cin, k, k), dtype=np.float32) * np.float32(math.sqrt(2 / (cin * k * k)))
        return kernel, self.rng.standard_normal(cout, dtype=np.float32) * np.float32(0.05)

    def conv(self, x, cin, cout, k, stride=1, relu=False):
        return self.conv_of(x, *self.draw(cin, cout, k), stride, relu)

    def option_a(self, x, cin, cout):
        """Every second pixel, the channels in the middle of `cout`."""
        kernel = np.zeros((cout, cin, 1, 1), np.float32)
        kernel[np.arange(cin) + (cout - cin) // 2, np.arange(cin)] = 1
        return self.conv_of(x, kernel, np.zeros(cout, np.float32), 2, False)


class Onnx(Emitter):
    """Emits an ONNX graph, NCHW, with a free batch."""

    def __init__(self, arch):
        super().__init__(arch)
        self.nodes, self.initializers = [], []
        self.side, self.input = NETWORKS[arch].side, "image"

    def node(self, op, inputs, **attributes):
        from onnx import helper

        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value):
        from onnx import numpy_helper

        name = f"constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def conv_of(self, x, kernel, bias, stride, relu):
        k = kernel.shape[2]
        inputs = [x, self.constant(kernel), self.constant(bias)]
        x = self.node("Conv", inputs, kernel_shape=[k, k], strides=[stride] * 2, pads=[k // 2] * 4)
        return self.node("Relu", [x]) if relu else x

    def add_relu(self, x, y):
        return self.node("Relu", [self.node("Add", [x, y])])

    def max_pool(self, x):
        return self.node("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)

    def classify(self, x, cin):
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x])])
        kernel, bias = self.draw(cin, self.classes, 1)
        return self.node("Gemm", [x, self.constant(kernel[:, :, 0, 0]), self.constant(bias)], transB=1)

    def model(self, output):
        import onnx
        from onnx import TensorProto, helper

        shapes = ["batch", 3, self.side, self.side], ["batch", self.classes]
        info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip((self.input, output), shapes)]
        graph = helper.make_graph(self.nodes, "network", info[:1], info[1:], self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(model)
        return onnx.shape_inference.infer_shapes(model)


class TensorFlow(Emitter):
    """Emits TensorFlow operations, NHWC."""

    def __init__(self, arch, x):
        import tensorflow

        super().__init__(arch)
        self.tf, self.input = tensorflow, x

    def padded(self, x, k):
        """PyTorch pads strided layers on all sides, TensorFlow's SAME at the bottom and right only."""
        return self.tf.pad(x, [[0, 0], [k // 2] * 2, [k // 2] * 2, [0, 0]]), "VALID"

    def conv_of(self, x, kernel, bias, stride, relu):
        k = kernel.shape[2]
        kernel = self.tf.constant(np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)))
        x, padding = self.padded(x, k) if stride > 1 and k > 1 else (x, "SAME")
        x = self.tf.nn.bias_add(self.tf.nn.conv2d(x, kernel, stride, padding), self.tf.constant(bias))
        return self.tf.nn.relu(x) if relu else x

    def add_relu(self, x, y):
        return self.tf.nn.relu(x + y)

    def max_pool(self, x):
        x, padding = self.padded(x, 3)
        return self.tf.nn.max_pool2d(x, 3, 2, padding)

    def classify(self, x, cin):
        kernel, bias = self.draw(cin, self.classes, 1)
        x = self.tf.reduce_mean(x, [1, 2])
        return self.tf.nn.bias_add(self.tf.matmul(x, self.tf.constant(kernel[:, :, 0, 0].T.copy())), self.tf.constant(bias))
