"""multiseg's training step, or its prediction: the backend's network in this process, on batches in memory."""

import importlib

from serving import batches, options, serve

from multiseg.network import NetworkSpec

given = options()
network = importlib.import_module(given["module"]).Network(NetworkSpec.from_json(given["spec"]))
pieces = batches(given)


def train() -> None:
    for features, labels in pieces:
        network.train_step(features, labels, given["rate"])


def test() -> None:
    for features, _ in pieces:
        network.predict(features, None)


serve(train if given["what"] == "train" else test, clock=given.get("clock", "wall"))
network.close()
