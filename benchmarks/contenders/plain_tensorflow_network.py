"""A TensorFlow 1 training loop (session and feed_dict) for any network file, as it is or with XLA; on a batch in memory.

multiseg only stands in for DIGITS, around which such a file is written: it makes the file's graph, and nothing is lowered.
"""

from pathlib import Path

import tensorflow
from multiseg_tensorflow import files, graph
from serving import batches, options, serve

given = options()
tf = tensorflow.compat.v1
((features, labels),) = batches(given)
file = files.load(Path(given["model"]), 1)
shape, label_shape = tuple(features.shape[1:]), tuple(labels.shape[1:])
made = graph.build(
    file, shape, label_shape, graph.read_layers(file, shape), training=True, loss=None, labels="classes", seed=1, lowering=False,
    device="cpu", batch_size=len(features),
)  # fmt: skip
config = tf.ConfigProto(intra_op_parallelism_threads=given["threads"], inter_op_parallelism_threads=given["threads"])
if given["variant"] == "XLA":
    config.graph_options.optimizer_options.global_jit_level = tf.OptimizerOptions.ON_1
with made.graph.as_default():
    optimizer = tf.train.MomentumOptimizer(given["rate"], 0.9)
    with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
        train_op = optimizer.minimize(made.loss)
    session = tf.Session(config=config)
    session.run(tf.global_variables_initializer())
feed = {made.x: features, made.y: labels}
if made.seed is not None:
    feed[made.seed] = 1


def train() -> None:
    session.run([train_op, made.loss], feed_dict=feed)


for _ in range(3):  # XLA compiles in the first
    train()
serve(train, clock=given["clock"])
