"""Write a program that computes an exported network in TensorFlow alone; see multiseg.topology.interfaces.AloneWriter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from multiseg.files import read_text
from multiseg_tensorflow import digits, files
from multiseg_tensorflow.graph import read_layers


def lines(network: str, weights: str, input_shape: Sequence[int], output: str, parameter: str | None) -> list[str]:
    """See multiseg.topology.interfaces.AloneWriter."""
    text = [
        "import sys",
        "import types",
        "import tensorflow.compat.v1 as tf",
        "class Tower:  # the base class of the network, as DIGITS has it",
        "    def __init__(self, x):",
        "        self.x, self.is_training = x, False",
        "modules = {name: types.ModuleType(name) for name in ('model', 'utils', 'tensorflow.contrib')}",
        "modules['model'].Tower, modules['utils'].model_property = Tower, property",
        "sys.modules.update(modules | {'tensorflow': tf})",
    ]
    if "slim" in read_text(Path(network)):
        text += [
            "import tf_slim",
            "tf.contrib = modules['tensorflow.contrib']",
            "tf.contrib.slim = sys.modules['tensorflow.contrib.slim'] = tf_slim",
        ]
    text += [
        "tf.disable_eager_execution()",
        f"from {Path(network).stem} import UserModel",
        f"with tf.variable_scope({digits.GraphKeys.MODEL!r}):",
        f"    x = tf.placeholder(tf.float32, [None, {input_shape[1]}, {input_shape[2]}, {input_shape[0]}])",
        "    output = UserModel(x).inference",
    ]
    channels_first = "({0}.transpose(0, 3, 1, 2) if {0}.ndim == 4 else {0})"
    measured = "measured = " + channels_first.format("measured")
    target = "output"
    if parameter is not None:
        channels, height, width = input_shape
        layers = read_layers(files.load(Path(network)), (height, width, channels))
        variable, weight = next((name, one) for name, one in layers.weights.items() if one.name == parameter)
        text += [
            "gradient = batch['output_gradient']",
            f"gradient = {channels_first.replace('0, 3, 1, 2', '0, 2, 3, 1').format('gradient')}",
            f"variable = next(each for each in tf.global_variables() if each.op.name == {variable!r})",
            "gradient, = tf.gradients(output, variable, gradient.reshape(-1, *output.shape[1:]))",
        ]
        target = "gradient"
        measured = f"measured = measured.reshape({weight.view}).transpose({weight.axes})"
    return [
        *text,
        "with tf.Session() as session:",
        f"    tf.train.Saver().restore(session, {'./' + Path(weights).name!r})"
        if read_layers(files.load(Path(network)), (input_shape[1], input_shape[2], input_shape[0])).weights
        else "    session.run(tf.global_variables_initializer())",
        f"    measured = session.run({target}, {{x: batch['input'].transpose(0, 2, 3, 1)}})",
        measured,
        "version = f'TensorFlow {tf.__version__}'",
    ]
