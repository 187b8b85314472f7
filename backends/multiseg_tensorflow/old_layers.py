"""Layers of TensorFlow 1 that TensorFlow 2 cannot compute without Keras 2, implemented with tf_slim."""

from __future__ import annotations

from typing import Any

import tensorflow
import tf_slim

tf = tensorflow.compat.v1


def batch_normalization(
    inputs: Any,
    axis: int = -1,
    momentum: float = 0.99,
    epsilon: float = 1e-3,
    center: bool = True,
    scale: bool = True,
    beta_initializer: Any = None,
    gamma_initializer: Any = None,
    moving_mean_initializer: Any = None,
    moving_variance_initializer: Any = None,
    training: Any = False,
    trainable: bool = True,
    name: str | None = None,
    reuse: Any = None,
    fused: bool | None = None,
) -> Any:
    """Apply tf.layers.batch_normalization over the channels, which are the last axis or axis 1.

    Raises ValueError for another axis.
    """
    rank = inputs.shape.rank
    if axis % rank not in (1, rank - 1):
        raise ValueError(f"axis={axis}: batch normalisation is over the channels; use the last axis (-1) or 1")
    initializers = {
        "beta": beta_initializer,
        "gamma": gamma_initializer,
        "moving_mean": moving_mean_initializer,
        "moving_variance": moving_variance_initializer,
    }
    with tf.variable_scope(name, "batch_normalization", [inputs], reuse=reuse) as scope:
        return tf_slim.batch_norm(
            inputs,
            decay=momentum,
            epsilon=epsilon,
            center=center,
            scale=scale,
            param_initializers={key: value for key, value in initializers.items() if value is not None},
            is_training=training,
            trainable=trainable,
            fused=fused,
            data_format="NHWC" if axis % rank == rank - 1 else "NCHW",
            scope=scope,
        )
