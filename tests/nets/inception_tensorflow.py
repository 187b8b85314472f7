from model import Tower
from utils import model_property
import tensorflow as tf
import tensorflow.contrib.slim as slim
import utils as digits


def inception(net, one, three, five, pool, scope):
    with tf.variable_scope(scope):
        with tf.variable_scope('branch_0'):
            branch_0 = slim.conv2d(net, one, [1, 1], scope='conv2d_1x1')
        with tf.variable_scope('branch_1'):
            branch_1 = slim.conv2d(net, three[0], [1, 1], scope='conv2d_1x1')
            branch_1 = slim.conv2d(branch_1, three[1], [3, 3], scope='conv2d_3x3')
        with tf.variable_scope('branch_2'):
            branch_2 = slim.conv2d(net, five[0], [1, 1], scope='conv2d_1x1')
            branch_2 = slim.conv2d(branch_2, five[1], [5, 5], scope='conv2d_5x5')
        with tf.variable_scope('branch_3'):
            branch_3 = slim.max_pool2d(net, [3, 3], scope='maxpool_3x3')
            branch_3 = slim.conv2d(branch_3, pool, [1, 1], scope='conv2d_1x1')
        return tf.concat([branch_0, branch_1, branch_2, branch_3], 3)


class UserModel(Tower):

    @model_property
    def inference(self):
        with slim.arg_scope([slim.conv2d, slim.max_pool2d], stride=1, padding='SAME'):
            net = slim.conv2d(self.x, 16, [3, 3], scope='conv1')
            net = slim.max_pool2d(net, [3, 3], stride=2, scope='pool1')
            net = inception(net, 16, (8, 16), (4, 8), 8, 'inception_3a')
            net = slim.max_pool2d(net, [3, 3], stride=2, scope='pool2')
            net = inception(net, 24, (12, 24), (6, 12), 12, 'inception_3b')
        net = slim.avg_pool2d(net, [8, 8], stride=1, padding='VALID', scope='pool3')
        net = slim.dropout(net, 0.6, is_training=self.is_training, scope='dropout')
        return slim.fully_connected(slim.flatten(net), 10, activation_fn=None, scope='classifier')

    @model_property
    def loss(self):
        return digits.classification_loss(self.inference, self.y)
