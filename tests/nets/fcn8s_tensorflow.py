from model import Tower
from utils import model_property
import numpy as np
import tensorflow as tf
import tensorflow.contrib.slim as slim
import utils as digits

CLASSES = 5


def bilinear(shape, dtype=tf.float32, partition_info=None):
    size = shape[0]
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 == 1 else factor - 0.5
    og = np.ogrid[:size, :size]
    filt = (1 - abs(og[0] - center) / factor) * (1 - abs(og[1] - center) / factor)
    weights = np.zeros(shape)
    for i in range(min(shape[2], shape[3])):
        weights[:, :, i, i] = filt
    return tf.constant(weights, dtype)


class UserModel(Tower):

    @model_property
    def inference(self):
        with slim.arg_scope([slim.conv2d], padding='SAME'):
            net, pools = self.x, []
            for stage, filters in enumerate([16, 32, 48, 64, 64], 1):
                net = slim.conv2d(net, filters, [3, 3], scope='conv%d' % stage)
                net = slim.max_pool2d(net, [2, 2], scope='pool%d' % stage)
                pools.append(net)
            net = slim.conv2d(net, 128, [1, 1], scope='fc6')
            net = slim.dropout(net, 0.5, is_training=self.is_training, scope='drop6')
            net = slim.conv2d(net, CLASSES, [1, 1], activation_fn=None, scope='score_fr')
            pool3 = slim.conv2d(pools[2], CLASSES, [1, 1], activation_fn=None, scope='score_pool3')
            pool4 = slim.conv2d(pools[3], CLASSES, [1, 1], activation_fn=None, scope='score_pool4')
        with slim.arg_scope([slim.conv2d_transpose], padding='SAME', activation_fn=None, biases_initializer=None,
                            weights_initializer=bilinear):
            net = slim.conv2d_transpose(net, CLASSES, [4, 4], stride=2, scope='upscore2')
            net = tf.add(net, pool4, name='fuse_pool4')
            net = slim.conv2d_transpose(net, CLASSES, [4, 4], stride=2, scope='upscore_pool4')
            net = tf.add(net, pool3, name='fuse_pool3')
            return slim.conv2d_transpose(net, CLASSES, [16, 16], stride=8, scope='upscore8')

    @model_property
    def loss(self):
        labels = tf.cast(tf.squeeze(self.y, [3]), tf.int32)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(logits=self.inference, labels=labels)
        return tf.reduce_mean(loss)
