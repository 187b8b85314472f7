# The network of contract.prototxt.
from model import Tower
from utils import model_property
import tensorflow as tf
import tensorflow.contrib.slim as slim
import utils as digits


class UserModel(Tower):

    @model_property
    def inference(self):
        with slim.arg_scope([slim.conv2d, slim.conv2d_transpose], padding='VALID', activation_fn=None):
            net = slim.conv2d(self.x, 6, [3, 3], padding='SAME', biases_initializer=None, scope='conv1')
            net = slim.batch_norm(net, is_training=self.is_training, scale=True, scope='norm')
            net = slim.conv2d(tf.nn.relu(net, name='relu1'), 8, [4, 4], stride=4, scope='conv2')
            return slim.conv2d_transpose(tf.nn.relu(net, name='relu2'), 3, [4, 4], stride=4, scope='deconv')

    @model_property
    def loss(self):
        return digits.mse_loss(self.inference, self.y)
