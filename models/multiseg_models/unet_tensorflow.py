# A U-Net of moderate size for TensorFlow 1, as DIGITS loads it: the same network as unet.prototxt, unet.lua and unet_torch.py.
# Four poolings, 8 to 128 filters, batch normalization (Ronneberger, Fischer and Brox, 2015). It keeps the size of the image,
# for images of any size. Labels are class indices.
from model import Tower
from utils import model_property
import tensorflow as tf
import tensorflow.contrib.slim as slim
import utils as digits

CLASSES = 21  # number of classes


def block(net, filters, name):
    net = slim.conv2d(net, filters, [3, 3], scope='conv%s_1' % name)
    return slim.conv2d(net, filters, [3, 3], scope='conv%s_2' % name)


def height_and_width(net):
    """Return height and width: numbers, or tensors in a graph for images of any size."""
    known, computed = net.shape.as_list(), tf.shape(net)
    return [known[axis] or computed[axis] for axis in (1, 2)]


def up(net, skip, filters, name):
    net = slim.conv2d_transpose(net, filters, [2, 2], stride=2, padding='VALID', activation_fn=None,
                                normalizer_fn=None, scope='up%s' % name)
    height, width = height_and_width(skip)
    net = net[:, :height, :width, :]  # pooling rounds sizes up; the crop makes an odd size odd again
    return tf.concat([skip, net], 3, name='concat%s' % name)


class UserModel(Tower):

    @model_property
    def inference(self):
        norm = {'is_training': self.is_training, 'decay': 0.9, 'epsilon': 1e-5, 'scale': True, 'fused': True}
        initializer = tf.contrib.layers.variance_scaling_initializer()
        with slim.arg_scope([slim.conv2d, slim.conv2d_transpose], weights_initializer=initializer,
                            normalizer_fn=slim.batch_norm, normalizer_params=norm):
            with slim.arg_scope([slim.max_pool2d], padding='SAME'):
                skip1 = block(self.x, 8, '1')
                skip2 = block(slim.max_pool2d(skip1, [2, 2], scope='pool1'), 16, '2')
                skip3 = block(slim.max_pool2d(skip2, [2, 2], scope='pool2'), 32, '3')
                skip4 = block(slim.max_pool2d(skip3, [2, 2], scope='pool3'), 64, '4')
                net = block(slim.max_pool2d(skip4, [2, 2], scope='pool4'), 128, '5')
            net = block(up(net, skip4, 64, '6'), 64, '6')
            net = block(up(net, skip3, 32, '7'), 32, '7')
            net = block(up(net, skip2, 16, '8'), 16, '8')
            net = block(up(net, skip1, 8, '9'), 8, '9')
            return slim.conv2d(net, self.nclasses or CLASSES, [1, 1], activation_fn=None, normalizer_fn=None,
                               scope='score')

    @model_property
    def loss(self):
        labels = tf.cast(tf.squeeze(self.y, [3]), tf.int64)
        return digits.classification_loss(self.inference, labels)
