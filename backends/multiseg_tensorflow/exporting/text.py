"""Source text of the helper functions and expressions of a DIGITS TensorFlow file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from multiseg.topology import Layer
from multiseg.topology.writing import (
    parameter,
)  # fmt: skip

RESERVED = ("net", "self", "tf", "slim", "digits", "Tower", "model_property", "UserModel")
PLACES = (0, 3, 1, 2)  # for each of the axes N, C, H, W, its index in an NHWC tensor


# The file includes those that it uses, in this order.
FUNCTIONS = {
    "convolution": """
def convolution(net, name, filters, kernel, strides=(1, 1), padding='VALID', dilations=(1, 1), groups=1, bias=True,
                **options):
    with tf.variable_scope(name):
        weights = tf.get_variable('weights', list(kernel) + [net.shape.as_list()[3] // groups, filters], **options)
        net = tf.nn.conv2d(net, weights, [1] + list(strides) + [1], padding, dilations=[1] + list(dilations) + [1])
        return add_bias(net, filters, options.get('trainable')) if bias else net
""",
    "deconvolution": '''
def deconvolution(net, name, filters, kernel, strides=(1, 1), padding='VALID', more=(0, 0), groups=1, bias=True,
                  **options):
    """Transposed convolution. n pixels become (n - 1) * stride + kernel + more with VALID, n * stride with SAME."""
    with tf.variable_scope(name):
        batch = tf.shape(net)[0]
        _, height, width, channels = net.shape.as_list()
        weights = tf.get_variable('weights', list(kernel) + [filters // groups, channels], **options)
        if padding == 'SAME':
            size = [height * strides[0], width * strides[1]]
        else:
            size = [(n - 1) * s + k + m for n, s, k, m in zip([height, width], strides, kernel, more)]

        def transposed(part, kernels):
            shape = [batch] + size + [filters // groups]
            return tf.nn.conv2d_transpose(part, kernels, shape, [1] + list(strides) + [1], padding)

        if groups == 1:
            net = transposed(net, weights)
        else:
            pairs = zip(tf.split(net, groups, 3), tf.split(weights, groups, 3))
            net = tf.concat([transposed(*pair) for pair in pairs], 3)
        return add_bias(net, filters, options.get('trainable')) if bias else net
''',
    "bilinear": '''
def bilinear(shape, dtype=tf.float32, partition_info=None):
    """Initialise every kernel as that of bilinear upsampling."""
    size = int(shape[0])
    factor = (size + 1) // 2
    line = tf.constant([1 - abs(x / float(factor) - (size - 1) / (2.0 * factor)) for x in range(size)], dtype)
    return tf.reshape(line, [-1, 1, 1, 1]) * tf.reshape(line, [1, -1, 1, 1]) * tf.ones(shape, dtype)
''',
    "dense": """
def dense(net, name, units, bias=True, **options):
    with tf.variable_scope(name):
        net = tf.matmul(net, tf.get_variable('weights', [net.shape.as_list()[1], units], **options))
        return add_bias(net, units, options.get('trainable')) if bias else net
""",
    "scale": '''
def scale(net, name, bias=False, **options):
    """Multiply each channel by a weight, and add a bias if specified."""
    with tf.variable_scope(name):
        channels = net.shape.as_list()[-1]
        net = net * tf.get_variable('weights', [channels], initializer=tf.ones_initializer(), **options)
        return add_bias(net, channels, options.get('trainable')) if bias else net
''',
    "prelu": """
def prelu(net, name, slopes, **options):
    with tf.variable_scope(name):
        weights = tf.get_variable('weights', [slopes], initializer=tf.constant_initializer(0.25), **options)
        return tf.nn.relu(net) - weights * tf.nn.relu(-net)
""",
    "max_pool_with_indices": '''
def max_pool_with_indices(net, kernel, strides, padding):
    """Max pooling, and the index of each maximum in the plane of its channel, row by row."""
    channels = net.shape.as_list()[3]
    net, places = tf.nn.max_pool_with_argmax(net, kernel, strides, padding)
    return net, places // channels
''',
    "max_unpool": '''
def max_unpool(net, indices, height, width):
    """Put each value at its index in the plane of its channel, and zeros elsewhere."""
    batch, channels = tf.shape(net)[0], net.shape.as_list()[3]
    ones = tf.ones_like(indices)
    image = ones * tf.reshape(tf.range(tf.cast(batch, tf.int64)), [-1, 1, 1, 1])
    channel = ones * tf.range(channels, dtype=tf.int64)
    places = tf.stack([image, indices // width, indices % width, channel], 4)
    return tf.scatter_nd(places, net, tf.stack([tf.cast(batch, tf.int64), height, width, channels]))
''',
    "average": '''
def average(net, kernel, strides, counted, beyond):
    """Average pooling. The zeros of the padding `counted` count in the mean, those of the padding `beyond` do not."""
    net, ones = tf.pad(net, counted), tf.pad(tf.ones_like(net), counted, constant_values=1)
    means, fractions = [tf.nn.avg_pool(tf.pad(x, beyond), kernel, strides, 'VALID') for x in (net, ones)]
    return means / fractions
''',
    "class_loss": '''
def class_loss(scores, y, normalization='valid', ignore=(), weight=1.0, label_scale=1.0, matrix=None):
    """Cross entropy of scores and class indices, one for each image or pixel, without the labels to ignore.

    The sum is divided by the number of these labels (valid), of all labels (full), of images (batch_size), or by 1 (none).
    With a matrix H, the loss of a label l is the sum over k of -H[l][k] log p[k]; weighted divides by the sum of H[l][l].
    """
    if label_scale == 1:
        tf.add_to_collection('multiseg_class_losses', (scores.shape.as_list()[-1], ignore))
    images = tf.shape(y)[0]
    labels = tf.reshape(tf.cast(tf.cast(y, tf.float32) * label_scale, tf.int64), [-1])
    counted = tf.ones_like(labels, tf.bool)
    for value in [*ignore, *tf.get_collection('multiseg_ignored')]:
        counted = tf.logical_and(counted, tf.not_equal(labels, value))
    labels = tf.where(counted, labels, tf.zeros_like(labels))
    scores = tf.reshape(scores, [-1, scores.shape.as_list()[-1]])
    counts = tf.cast(counted, tf.float32)
    if matrix is None:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=scores, labels=labels)
    else:
        rows = tf.gather(tf.constant(matrix, tf.float32), labels)
        losses = -tf.reduce_sum(rows * tf.nn.log_softmax(scores), 1)
    if normalization == 'weighted':
        weights = tf.gather(tf.constant([row[i] for i, row in enumerate(matrix)], tf.float32), labels) * counts
        return weight * tf.reduce_sum(losses * counts) / tf.maximum(tf.reduce_sum(weights), 1e-30)
    return weight * tf.reduce_sum(losses * counts) / divisor(normalization, counts, images)
''',
    "sigmoid_loss": '''
def sigmoid_loss(scores, y, normalization='valid', ignore=(), weight=1.0, label_scale=1.0):
    """Cross entropy of the sigmoid of scores and labels of 0 to 1, one for each score, without the labels to ignore.

    The sum is divided by the number of these labels (valid), of all labels (full), of images (batch_size), or by 1 (none).
    """
    labels = tf.reshape(tf.cast(y, tf.float32) * label_scale, tf.shape(scores))
    counts = tf.ones_like(labels)
    for value in ignore:
        counts = counts * tf.cast(tf.not_equal(tf.cast(labels, tf.int64), value), tf.float32)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(logits=scores, labels=labels)
    return weight * tf.reduce_sum(losses * counts) / divisor(normalization, counts, tf.shape(y)[0])
''',
    "divisor": """
def divisor(normalization, counts, images):
    numbers = {'valid': tf.reduce_sum(counts), 'full': tf.size(counts), 'batch_size': images, 'none': 1}
    return tf.maximum(tf.cast(numbers[normalization], tf.float32), 1.0)
""",
    "add_bias": """
def add_bias(net, channels, trainable=None):
    biases = tf.get_variable('biases', [channels], initializer=tf.zeros_initializer(), trainable=trainable)
    return tf.nn.bias_add(net, biases)
""",
}
ELEMENTWISE = {
    "Relu": "tf.nn.relu({net})",
    "LeakyRelu": "tf.nn.leaky_relu({net}, {alpha})",
    "ThresholdedRelu": "tf.where({net} > {alpha}, {net}, {other})",
    "Sigmoid": "tf.sigmoid({net})",
    "Tanh": "tf.tanh({net})",
    "Softplus": "tf.nn.softplus({net})",
    "Abs": "tf.abs({net})",
    "Exp": "tf.exp({net})",
    "Log": "tf.log({net})",
    "Neg": "-{net}",
    "Sqrt": "tf.sqrt({net})",
    "Pow": "{net} ** {exponent}",
    "Identity": "tf.identity({net})",
}


def scope_name(name: str) -> str:
    """Return the variable scope for a layer: its name, with characters that a scope cannot have replaced."""
    scope = re.sub(r"[^A-Za-z0-9_.\-]", "_", name.replace("/", "."))
    return scope if re.match(r"[A-Za-z0-9.]", scope) else f"layer{scope}"


def window_options(layer: Layer, padding: str) -> str:
    """Return the arguments for the strides and the padding, without those that have their default."""
    strides = parameter(layer, "strides")
    options = f", strides={list(strides)}" if max(strides) > 1 else ""
    return options + (f", padding='{padding}'" if padding != "VALID" else "")


def paddings(pads: Sequence[int]) -> str:
    """Return the paddings of an NHWC tensor, as tf.pad takes them, from (top, left, bottom, right)."""
    top, left, bottom, right = pads
    return f"[[0, 0], [{top}, {bottom}], [{left}, {right}], [0, 0]]"


def training_options(layer: Layer) -> str:
    """Return the arguments for weights that start as bilinear upsampling, or that are not trained."""
    initial = ", initializer=bilinear" if layer.initial == "bilinear" else ""
    return initial + (", trainable=False" if layer.frozen else "")
