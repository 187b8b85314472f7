"""A TensorFlow 1 training loop (session and feed_dict) for fcn_tensorflow.py's layers, on batches in memory.

The file itself needs DIGITS around it: its layers are made here by tf-slim's functions that it calls, with the same arguments.
"""

import tensorflow
import tf_slim as slim
from serving import batches, options, serve

given = options()
tf = tensorflow.compat.v1
tf.disable_v2_behavior()
tf.set_random_seed(1)
pieces = batches(given)
x, y = (tf.placeholder(tf.float32, [None, *given["size"], 1]) for _ in range(2))
with slim.arg_scope(
    [slim.conv2d, slim.conv2d_transpose],
    weights_initializer=tf.keras.initializers.glorot_uniform(),
    weights_regularizer=slim.l2_regularizer(0.05),
):
    net = slim.conv2d(x, 32, [3, 3], padding="SAME", scope="conv1")
    net = slim.conv2d(net, 1024, [16, 16], stride=16, padding="VALID", scope="conv2")
    net = slim.conv2d_transpose(net, 1, [16, 16], stride=16, padding="VALID", activation_fn=None, scope="deconv")
loss = tf.reduce_mean(tf.square(net - y))
train_op = tf.train.GradientDescentOptimizer(given["rate"]).minimize(loss)
config = tf.ConfigProto(intra_op_parallelism_threads=given["threads"], inter_op_parallelism_threads=given["threads"])
session = tf.Session(config=config)
session.run(tf.global_variables_initializer())


def train() -> None:
    for features, labels in pieces:
        session.run([train_op, loss], feed_dict={x: features, y: labels})


def test() -> None:
    for features, _ in pieces:
        session.run(net, feed_dict={x: features})


serve(train if given["what"] == "train" else test)
