"""multiseg's training step: the backend's network in this process, on a batch that lies ready."""

import importlib

import numpy as np
from serving import options, serve

from multiseg.network import NetworkSpec

given = options()
network = importlib.import_module(given["module"]).Network(NetworkSpec.from_json(given["spec"]))
features, labels = (np.load(given["batch"])[name] for name in ("features", "labels"))
serve(lambda: network.train_step(features, labels, given["rate"]))
