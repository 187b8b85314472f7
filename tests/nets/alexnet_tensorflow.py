# Groups by splitting images and kernels, as the Caffe converters of the time wrote them.
from model import Tower
from utils import model_property
import tensorflow as tf
import tensorflow.contrib.slim as slim
import utils as digits


def conv(x, size, outputs, name, stride=1, padding='SAME', groups=1):
    channels = int(x.get_shape()[-1])
    convolve = lambda i, k: tf.nn.conv2d(i, k, strides=[1, stride, stride, 1], padding=padding)
    with tf.variable_scope(name):
        weights = tf.get_variable('weights', shape=[size, size, channels // groups, outputs],
                                  initializer=tf.truncated_normal_initializer(stddev=0.05))
        biases = tf.get_variable('biases', shape=[outputs], initializer=tf.zeros_initializer())
        if groups == 1:
            net = convolve(x, weights)
        else:
            inputs = tf.split(axis=3, num_or_size_splits=groups, value=x)
            kernels = tf.split(axis=3, num_or_size_splits=groups, value=weights)
            net = tf.concat(axis=3, values=[convolve(i, k) for i, k in zip(inputs, kernels)])
        return tf.nn.relu(tf.reshape(tf.nn.bias_add(net, biases), tf.shape(net)), name='relu')


def lrn(x, name):
    return tf.nn.local_response_normalization(x, depth_radius=2, alpha=1e-4 / 5, beta=0.75, bias=1.0, name=name)


class UserModel(Tower):

    @model_property
    def inference(self):
        net = conv(self.x, 11, 24, 'conv1', stride=4, padding='VALID')
        net = lrn(net, 'norm1')
        net = tf.nn.max_pool(net, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding='VALID', name='pool1')
        net = conv(net, 5, 64, 'conv2', groups=2)
        net = lrn(net, 'norm2')
        net = tf.nn.max_pool(net, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding='VALID', name='pool2')
        net = conv(net, 3, 96, 'conv3')
        net = conv(net, 3, 96, 'conv4', groups=2)
        net = conv(net, 3, 64, 'conv5', groups=2)
        net = tf.nn.max_pool(net, ksize=[1, 3, 3, 1], strides=[1, 2, 2, 1], padding='VALID', name='pool5')
        net = slim.flatten(net, scope='flatten')
        net = slim.fully_connected(net, 256, scope='fc6')
        net = slim.dropout(net, 0.5, is_training=self.is_training, scope='drop6')
        net = slim.fully_connected(net, 256, scope='fc7')
        net = slim.dropout(net, 0.5, is_training=self.is_training, scope='drop7')
        return slim.fully_connected(net, 10, activation_fn=None, scope='fc8')

    @model_property
    def loss(self):
        labels = tf.to_int32(self.y)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=self.inference, labels=labels)
        return tf.reduce_mean(loss)
