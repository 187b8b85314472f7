"""Keras 3's ``fit`` with the FCN's layers, loss and optimiser of the framework under it, over PNG files, shuffled."""

import os
from pathlib import Path

import keras
import numpy as np
from serving import options, serve_turns

given = options()
keras.utils.set_random_seed(1)
inputs, targets = (
    np.array(sorted(str(path) for path in Path(given["folder"], part).glob("*.png"))) for part in ("input", "target")
)
if os.environ["KERAS_BACKEND"] == "torch":
    import torch
    from PIL import Image

    torch.set_num_threads(given["threads"])

    class Triangles(keras.utils.PyDataset):
        """As in Keras' documentation of PyDataset."""

        def __init__(self) -> None:
            super().__init__(workers=2)
            self.on_epoch_end()

        def __len__(self) -> int:
            return -(-len(inputs) // given["batch_size"])

        def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
            some = self.order[index * given["batch_size"] :][: given["batch_size"]]
            x, y = (
                np.stack([np.array(Image.open(path))[..., None] for path in paths[some]]).astype(np.float32)
                for paths in (inputs, targets)
            )
            return x - given["mean"], y

        def on_epoch_end(self) -> None:
            self.order = np.random.permutation(len(inputs))

    dataset = Triangles()
    optimizer, loss = keras.optimizers.SGD(given["rate"], momentum=0.9, weight_decay=1e-4), keras.losses.Huber()
else:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(given["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(given["threads"])

    def load(*paths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x, y = (tf.cast(tf.io.decode_png(tf.io.read_file(path), 1), tf.float32) for path in paths)
        return x - given["mean"], y

    dataset = tf.data.Dataset.from_tensor_slices((inputs, targets)).shuffle(len(inputs)).repeat()
    dataset = dataset.map(load, tf.data.AUTOTUNE).batch(given["batch_size"]).prefetch(tf.data.AUTOTUNE)
    optimizer, loss = keras.optimizers.SGD(given["rate"]), keras.losses.MeanSquaredError()

model = keras.Sequential(
    [
        keras.Input((32, 32, 1)),
        keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
        keras.layers.Conv2D(1024, 16, strides=16, activation="relu"),
        keras.layers.Conv2DTranspose(1, 16, strides=16),
    ]
)
model.compile(optimizer, loss)
serve_turns(lambda count, _: model.fit(dataset, steps_per_epoch=count, epochs=1, verbose=0))
