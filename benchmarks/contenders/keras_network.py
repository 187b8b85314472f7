"""Keras 3's ``fit`` with ``jit_compile`` for the U-Net and the FCN-8s of the benchmarks, on a batch in memory."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
import keras
import tensorflow as tf
from keras import layers
from serving import batches, options, serve_turns

given = options()
keras.utils.set_random_seed(1)
tf.config.threading.set_intra_op_parallelism_threads(given["threads"])
tf.config.threading.set_inter_op_parallelism_threads(given["threads"])
((features, labels),) = batches(given)
Tensor = tf.Tensor


def block(net: Tensor, filters: int) -> Tensor:
    for _ in range(2):
        net = layers.Conv2D(filters, 3, padding="same", use_bias=False)(net)
        net = layers.ReLU()(layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(net))
    return net


def unet(net: Tensor) -> Tensor:
    skips = []
    for filters in (8, 16, 32, 64):
        skips.append(block(net, filters))
        net = layers.MaxPooling2D()(skips[-1])
    net = block(net, 128)
    for filters in (64, 32, 16, 8):
        net = layers.Conv2DTranspose(filters, 2, strides=2)(net)
        net = block(layers.Concatenate()([skips.pop(), net]), filters)
    return layers.Conv2D(given["classes"], 1)(net)


def fcn8s(net: Tensor) -> Tensor:
    pools = []
    for filters in (16, 32, 48, 64, 64):
        net = layers.MaxPooling2D()(layers.Conv2D(filters, 3, padding="same", activation="relu")(net))
        pools.append(net)
    net = layers.Dropout(0.5)(layers.Conv2D(128, 1, activation="relu")(net))
    net = layers.Conv2D(given["classes"], 1)(net)
    for pool in (pools[3], pools[2]):
        net = layers.Conv2DTranspose(given["classes"], 4, strides=2, padding="same", use_bias=False)(net)
        net = layers.Add()([net, layers.Conv2D(given["classes"], 1)(pool)])
    return layers.Conv2DTranspose(given["classes"], 16, strides=8, padding="same", use_bias=False)(net)


NETWORKS = {"unet_tensorflow": unet, "fcn8s_tensorflow": fcn8s}
images = keras.Input(features.shape[1:], batch_size=len(features))
model = keras.Model(images, NETWORKS[given["network"]](images))
model.compile(
    keras.optimizers.SGD(given["rate"], momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    jit_compile=True,
)  # fmt: skip
dataset = tf.data.Dataset.from_tensors((features, labels)).repeat()
serve_turns(lambda count, _: model.fit(dataset, steps_per_epoch=count, epochs=1, verbose=0), clock=given["clock"])
