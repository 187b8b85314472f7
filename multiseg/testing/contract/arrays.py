"""Tests of inputs and outputs: axis orders, batches of any size, and the output of every layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from multiseg.errors import ModelError
from multiseg.model_files import reading
from multiseg.reference import NotComputable, forward
from multiseg.testing.bench import Bench
from multiseg.testing.comparing import close
from multiseg.testing.contract.subject import Subject

ROUNDING = 1e-5  # tolerance relative to the largest number, for sums in a different order


class Arrays(Subject):
    """Tests of predictions."""

    def test_output_is_in_the_declared_layout(self, bench: Bench) -> None:
        bench.load(predict_only=True)
        bench.begin()
        output, loss, made = bench.call("predict", features=bench.batch(2)["features"], labels=None)
        channels, height, width = bench.label_shape
        wanted = (2, channels, height, width) if bench.backend.data_order == "NCHW" else (2, height, width, channels)
        assert output.shape == wanted, (
            f"predict: the output of two images is {output.shape}; declared is {bench.backend.data_order}, that is {wanted}"
        )
        assert output.dtype == np.float32, f"predict: the output is {output.dtype}, must be float32"
        assert loss is None and not made, "predict: without labels there is no loss, unless asked no activations"

    @pytest.mark.parametrize("lowering", [True, False])
    def test_every_layer_computes_what_its_weights_say(self, bench: Bench, lowering: bool) -> None:
        """Compute each layer in float64 from the activations of the layers before it, as returned by the backend."""
        bench.load(predict_only=True, lowering=lowering, loss="l2")
        weights, images, labels = bench.begin(), bench.images(3), bench.labels(3)
        topology = reading.describe(bench.model, bench.input_shape, bench.worker)
        features = bench.layout.features(images)
        output, _, made = bench.call("predict", features=features, labels=None, activations=True)
        known = {name for layer in topology.layers for name in layer.outputs}
        assert made and set(made) <= known, f"predict: activations {list(made)} must be of the layers {sorted(known)}"
        order = [name for layer in topology.layers for name in layer.outputs if name in made]
        assert list(made) == order, f"predict: activations must come in the order of computation, {order}"
        tolerance = (
            ROUNDING * np.abs(output).max()
        )  # a framework may fuse a layer with the next one if its activation is not requested
        close(made[topology.outputs[0]].reshape(output.shape), output, tolerance, "the last activation, the output,")

        fed = features if bench.backend.data_order == "NCHW" else features.transpose(0, 3, 1, 2)
        given = {name: bench.layout.activation(value) for name, value in made.items()}
        try:
            expected = forward(topology, weights, fed, given).computed
        except NotComputable as error:
            pytest.skip(str(error))
        for name, value in given.items():
            shape = topology.shapes[name]
            assert value.size == len(value) * np.prod(shape), (
                f"predict: what {name!r} made is {made[name].shape}; {shape} (C, H, W) is expected for each image, as "
                f"{bench.backend.data_order}"
            )
            advice = "are its weights OIHW (a deconvolution's IOHW), and images in the declared data order?"
            close(
                value.reshape(expected[name].value.shape), expected[name].value, expected[name].bound + 1e-30,
                f"what the layer {name!r} makes of its input and its neutral weights ({advice})",
            )  # fmt: skip
        plain, loss, none = bench.call("predict", features=features, labels=bench.layout.labels(labels))
        assert none == {} and loss is not None
        close(plain, output, tolerance, "the output with its loss, and without activations,")

    def test_lowering_changes_no_output(self, bench: Bench) -> None:
        made = []
        for lowering in (False, True):
            bench.load(predict_only=True, lowering=lowering)
            assert lowering or not bench.described["lowered"], "lowering=False: must lower nothing"
            bench.begin()
            made.append(bench.predict(bench.images(3))[0])
        close(made[1], made[0], ROUNDING * np.abs(made[0]).max(), "the output with lowering")

    def test_images_of_a_batch_are_apart(self, bench: Bench) -> None:
        bench.load(predict_only=True, loss="l2")
        bench.begin()
        images, labels = bench.images(5), bench.labels(5)
        output, loss = bench.predict(images, labels)
        tolerance = ROUNDING * np.abs(output).max()
        order = np.array([3, 0, 4, 1, 2])
        moved, _ = bench.predict(images[order], labels[order])
        close(moved, output[order], tolerance, "the output of a batch in another order")
        losses = []
        for at in range(5):
            alone, own = bench.predict(images[at : at + 1], labels[at : at + 1])
            close(alone, output[at : at + 1], tolerance, "the output of an image by itself")
            losses.append(own)
        assert loss == pytest.approx(np.mean(losses, dtype=np.float64), rel=1e-5), (
            "the loss of a batch is the images' mean"
        )

    def test_evaluates_as_it_predicts(self, bench: Bench) -> None:
        bench.load(predict_only=True, loss="l2")
        bench.begin()
        images, labels = bench.images(5), bench.labels(5)
        output, loss = bench.predict(images, labels)
        batch = {"features": bench.layout.features(images), "labels": bench.layout.labels(labels)}
        own, terms = bench.call("evaluate", **batch)
        close(bench.layout.output(own), output, ROUNDING * np.abs(output).max(), "the output of evaluate")
        assert sum(total / count for total, count in terms) == pytest.approx(loss, rel=1e-5), (
            "evaluate: the sum of total / count over the terms is the loss of the batch"
        )

    @pytest.mark.parametrize("count", [1, 7, 33])
    def test_batches_of_any_size_are_predicted(self, bench: Bench, count: int) -> None:
        bench.load(predict_only=True, batch_size=4, val_batch_size=4)
        output, _ = bench.predict(bench.images(count))
        assert len(output) == count, f"predict: {count} images give {len(output)} outputs"

    def test_images_of_another_size_are_predicted_or_refused(self, bench: Bench) -> None:
        bench.load(predict_only=True)
        bench.begin()
        height, width = (2 * size for size in bench.input_shape[1:])
        images: Any = bench.images(2, size=(height, width))
        try:
            output, _ = bench.predict(images)
        except ModelError:
            return
        assert len(output) == 2 and np.isfinite(output).all(), "predict: larger images give outputs that are no numbers"
        again, _ = bench.predict(images[1:])
        close(again, output[1:], ROUNDING * np.abs(output).max(), "the output of a larger image by itself")
