"""Losses that Caffe's own layers cannot express, as Python layers. Caffe imports this module by name; it needs pycaffe."""

from __future__ import annotations

import json
from typing import Any

import caffe
import numpy as np


class Focal(caffe.Layer):  # type: ignore[misc]
    """The focal loss of scores (N, C, ...) and labels (N, 1, ...), divided by the number of labels that count.

    ``param_str`` is JSON: ``gamma``, ``ignore`` (a label or null) and ``weights`` (one for each class, or none).
    """

    def setup(self, bottom: Any, top: Any) -> None:
        """Read the parameters."""
        self.parameters = json.loads(self.param_str)

    def reshape(self, bottom: Any, top: Any) -> None:
        """Make the loss one number."""
        top[0].reshape(1)

    def forward(self, bottom: Any, top: Any) -> None:
        """Compute the loss, and the softmax for the gradient."""
        scores = bottom[0].data
        scores = scores.reshape(*scores.shape[:2], -1)
        labels = bottom[1].data.reshape(len(scores), 1, -1)
        ignore, weights = self.parameters["ignore"], self.parameters["weights"]
        counted = np.ones(labels.shape, bool) if ignore is None else labels != ignore
        self.indices = np.where(counted, labels, 0).astype(np.int64)
        shifted = scores - scores.max(1, keepdims=True)
        powers = np.exp(shifted)
        sums = powers.sum(1, keepdims=True)
        self.p = powers / sums
        self.surprise = np.log(sums) - np.take_along_axis(shifted, self.indices, 1)
        # the lower limit keeps the slope of a power below 1 finite where the probability is rounded to 1
        self.rest = np.maximum(1 - np.take_along_axis(self.p, self.indices, 1), np.float32(2.0**-24))
        self.factor = counted / np.float32(max(int(counted.sum()), 1))
        if weights:
            self.factor = self.factor * np.asarray(weights, np.float32)[self.indices]
        losses = self.factor * self.rest ** np.float32(self.parameters["gamma"]) * self.surprise
        top[0].data[...] = losses.sum(dtype=np.float64)

    def backward(self, top: Any, propagate_down: Any, bottom: Any) -> None:
        """Compute the gradient of the scores."""
        if not propagate_down[0]:
            return
        gamma = np.float32(self.parameters["gamma"])
        p = np.take_along_axis(self.p, self.indices, 1)
        height = self.rest**gamma + gamma * p * self.rest ** (gamma - 1) * self.surprise
        slope = self.p.copy()
        np.put_along_axis(slope, self.indices, p - 1, 1)
        bottom[0].diff[...] = (float(top[0].diff.flat[0]) * self.factor * height * slope).reshape(bottom[0].diff.shape)
