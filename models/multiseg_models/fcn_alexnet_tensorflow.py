# FCN-AlexNet (Long, Shelhamer and Darrell, 2015) for TensorFlow 1, as DIGITS loads it: the same network as fcn_alexnet.prototxt.
# Scores at stride 32, bilinear upsampling that is not trained. Layers have the names of AlexNet, whose trained weights start them.
# Labels are class indices.
from model import Tower
from utils import model_property
import numpy as np
import tensorflow as tf
import tensorflow.contrib.slim as slim
import utils as digits

CLASSES = 21  # number of classes


def bilinear(size):
    """Return the kernel of bilinear upsampling, (size, size)."""
    factor = (size + 1) // 2
    centre = factor - 1 if size % 2 == 1 else factor - 0.5
    weights = 1 - np.abs(np.arange(size) - centre) / factor
    return weights[:, None] * weights[None, :]


def convolution(net, name, filters, size, stride=1, padding='SAME', groups=1, std=0.01):
    with tf.variable_scope(name):
        weights = tf.get_variable('weights', [size, size, net.shape.as_list()[3] // groups, filters],
                                  initializer=tf.random_normal_initializer(stddev=std) if std else tf.zeros_initializer())
        biases = tf.get_variable('biases', [filters], initializer=tf.zeros_initializer())
        return tf.nn.bias_add(tf.nn.conv2d(net, weights, [1, stride, stride, 1], padding), biases)


def pool(net):
    # windows that begin inside the image, as in Caffe
    net = tf.pad(net, [[0, 0], [0, 1], [0, 1], [0, 0]], constant_values=float('-inf'))
    return tf.nn.max_pool(net, [1, 3, 3, 1], [1, 2, 2, 1], 'VALID')


def norm(net):
    return tf.nn.local_response_normalization(net, depth_radius=2, bias=1.0, alpha=0.0001 / 5, beta=0.75)


def height_and_width(net):
    """Return height and width: numbers, or tensors in a graph for images of any size."""
    known, computed = net.shape.as_list(), tf.shape(net)
    return [known[axis] or computed[axis] for axis in (1, 2)]


def upsampling(net, name, size, stride):
    """Bilinear upsampling of each channel, which is not trained."""
    (height, width), channels = height_and_width(net), net.shape.as_list()[3]
    with tf.variable_scope(name):
        kernel = np.tile(bilinear(size)[:, :, None, None], [1, 1, 1, channels]).astype(np.float32)
        weights = tf.get_variable('weights', kernel.shape, initializer=tf.constant_initializer(kernel), trainable=False)
        shape = [tf.shape(net)[0], (height - 1) * stride + size, (width - 1) * stride + size, 1]
        parts = zip(tf.split(net, channels, 3), tf.split(weights, channels, 3))
        return tf.concat([tf.nn.conv2d_transpose(part, kernels, shape, [1, stride, stride, 1], 'VALID')
                          for part, kernels in parts], 3)


class UserModel(Tower):

    @model_property
    def inference(self):
        height, width = height_and_width(self.x)
        net = self.x - 116.0  # in place of a mean
        net = tf.pad(net, [[0, 0], [100, 100], [100, 100], [0, 0]])
        net = norm(pool(tf.nn.relu(convolution(net, 'conv1', 96, 11, stride=4, padding='VALID'))))
        net = norm(pool(tf.nn.relu(convolution(net, 'conv2', 256, 5, groups=2))))
        net = tf.nn.relu(convolution(net, 'conv3', 384, 3))
        net = tf.nn.relu(convolution(net, 'conv4', 384, 3, groups=2))
        net = pool(tf.nn.relu(convolution(net, 'conv5', 256, 3, groups=2)))
        net = tf.nn.relu(convolution(net, 'fc6', 4096, 6, padding='VALID', std=0.005))
        net = slim.dropout(net, 0.5, is_training=self.is_training)
        net = tf.nn.relu(convolution(net, 'fc7', 4096, 1, padding='VALID', std=0.005))
        net = slim.dropout(net, 0.5, is_training=self.is_training)
        net = convolution(net, 'score_fr', self.nclasses or CLASSES, 1, padding='VALID', std=0)
        net = upsampling(net, 'upscore', 63, 32)
        return net[:, 18:18 + height, 18:18 + width, :]

    @model_property
    def loss(self):
        return digits.classification_loss(self.inference, tf.cast(tf.squeeze(self.y, [3]), tf.int64))
