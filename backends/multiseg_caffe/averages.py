"""Describe how BatchNorm updates the averages that it keeps (multiseg.network.Network.describe)."""

from __future__ import annotations

from typing import Any

from multiseg_caffe.weights import BATCH_NORM


def rules(net: Any) -> dict[str, dict[str, Any]]:
    """Return the rule of each average by its neutral name; ``net`` is the definition of the training network.

    Caffe keeps sums of means and of unbiased variances, and their divisor (src/caffe/layers/batch_norm_layer.cpp).
    """
    found: dict[str, dict[str, Any]] = {}
    for layer in net.layer:
        p = layer.batch_norm_param
        if layer.type == "BatchNorm" and not p.use_global_stats:
            rule = {"rule": "sums", "momentum": round(1 - p.moving_average_fraction, 6), "unbiased": True}
            found.update({f"{layer.name}.{part}": dict(rule) for part in BATCH_NORM})
    return found
