# The tutorial's fully convolutional network for TensorFlow 1, as DIGITS loads it.
from model import Tower
from utils import model_property
import tensorflow as tf
import tensorflow.contrib.slim as slim
import utils as digits

OUTPUTS = None  # number of classes, or of channels of the label images; None: as many as the image has


class UserModel(Tower):

    @model_property
    def inference(self):
        with slim.arg_scope([slim.conv2d, slim.conv2d_transpose],
                            weights_initializer=tf.contrib.layers.xavier_initializer(),
                            weights_regularizer=slim.l2_regularizer(0.05)):
            net = slim.conv2d(self.x, 32, [3, 3], padding='SAME', scope='conv1')
            net = slim.conv2d(net, 1024, [16, 16], stride=16, padding='VALID', scope='conv2')
            net = slim.conv2d_transpose(net, OUTPUTS or self.input_shape[2], [16, 16], stride=16, padding='VALID',
                                        activation_fn=None, scope='deconv')
        return net

    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, tf.reshape(self.y, tf.shape(self.inference)))
