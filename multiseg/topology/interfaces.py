"""The modules of a backend that read and write files, as protocols; docs/backends.md shows how to write them.

A backend names its modules in multiseg.backend.Backend: ``reader`` is a module with the functions of :class:`Reader`;
``exporter``, ``writer`` and ``onnx`` name one function each. A module can be checked statically against its protocol by an
assignment, ``reader: Reader = my_backend.reader``; the contract suite compares the signatures. All functions raise ModelError
naming the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from multiseg.topology.topology import Topology

Array = npt.NDArray[np.float32]


class Reader(Protocol):
    """Reads network files and weights files."""

    def describe(self, path: str, input_shape: list[int] | None) -> dict[str, Any]:
        """Return the description of a network file for images of ``input_shape`` (C, H, W), as plain values.

        Keys: ``input`` (name of the first input), ``input_shape``, ``layers``, ``outputs`` (names of values), ``loss`` (text, or
        None), ``loss_labels``, ``cross_entropy``, ``objective``, ``mean`` (optional; multiseg.topology.description), and
        ``shared``, groups of names of layers with a weight in common. Optional are ``tied``, ``more_inputs`` (shapes of further
        inputs by name), ``output_titles``, ``aliases`` and ``remarks`` (multiseg.topology.description). Each layer is a dict with
        ``name``, ``type``, ``inputs`` and ``parameters`` in the vocabulary of multiseg.topology, ``outputs`` if they are not just
        its name, and for types beyond the vocabulary ``shapes``, ``weights`` and optionally the ``reason``, what keeps it out of
        the vocabulary. If ``input_shape`` is None, the file must specify it.
        """
        ...

    def read_weights(
        self, path: str, network: str | None = None, input_shape: list[int] | None = None
    ) -> Mapping[str, Array]:
        """Return the neutral weights of a file, ``{"layer.part": float32 array}``.

        ``network`` is the network file of this backend that they belong to, if it is known, for images of ``input_shape``: not
        every weights file specifies the layout of its arrays.
        """
        ...


class WeightsWriter(Protocol):
    """Writes neutral weights as the framework's own file."""

    def __call__(
        self,
        path: str,
        weights: Mapping[str, Array],
        network: str | None,
        input_shape: list[int] | None,
        others: Mapping[str, Array],
    ) -> dict[str, list[str]]:
        """Write ``weights`` to ``path``, or to several files whose names begin with it.

        With ``network`` the names are those of this network file; without it they are written as they are. A network may have
        more parameters than its description: of these the function takes from ``others`` each that has the name and shape, and
        leaves those that lead to no output as the network initialises them. Returns the names of both, ``taken`` and ``started``.
        """
        ...


class Exporter(Protocol):
    """Writes a described network as source of the framework; imports no framework."""

    def __call__(self, topology: Topology, classes: bool = False) -> str:
        """Return the text of a network file whose loss is multiseg.topology.objective.objective_of(topology, classes).

        If that is None, the loss is the backend's own loss of images. The output of the network stays the topology's. Comments
        at its head name what it does not express (multiseg.topology.notes).
        Raises ModelError naming every layer that the framework cannot express.
        """
        ...


class OnnxWriter(Protocol):
    """Writes a network file of the backend as ONNX, in the backend's process."""

    def __call__(
        self,
        path: str,
        title: str,
        weights: Mapping[str, Array],
        images: Sequence[Sequence[Array]],
        inputs: Sequence[str],
        outputs: Sequence[str],
        metadata: Mapping[str, str],
        out: str,
        tolerance: float,
        image_type: str | None = None,
        argmax: bool = False,
        values: Sequence[str] = (),
    ) -> list[Array]:
        """Write the network file ``path`` with ``weights`` as the ONNX file ``out``; return its outputs for the first images.

        ``title`` names the network in messages; ``images`` are batches, a (N, C, H, W) for each input, the first of the network's
        size; ``inputs`` and ``outputs`` are the names of inputs and outputs in the file; ``tolerance`` is the largest difference
        from the framework's output that is accepted, as a fraction of the largest output. The next two are passed only if they
        are requested: ``image_type``, uint8 or float32, for an input of images as they are read, colours as R, G, B, whose
        preprocessing is in the graph; ``argmax`` for class indices in the place of the output.

        ``values`` are the names of all outputs of the network file, which begin with ``outputs``; the others become names of
        tensors in the ONNX file. The returned outputs are followed by all of ``values`` as onnxruntime computes them if each is
        an output of the file, an empty array for one that is no tensor of its own.
        """
        ...


class OnnxRunner(Protocol):
    """Runs ONNX files; functions of the module that also has the :class:`OnnxWriter`."""

    def described(self, path: str) -> dict[str, Any]:
        """Return ``metadata`` of an ONNX file, its ``inputs`` and ``outputs`` (name and numpy type) and names of ``tensors``."""
        ...

    def compute(self, path: str, batch: Sequence[Array], names: Sequence[str] | None = None) -> list[Array]:
        """Return the outputs of an ONNX file for an array of each input, or instead the tensors ``names``; empty if unknown."""
        ...


class AloneWriter(Protocol):
    """Writes a program that computes an exported network with the framework alone, in the backend's process."""

    def __call__(
        self, network: str, weights: str, input_shape: Sequence[int], output: str, parameter: str | None
    ) -> list[str]:
        """Return lines of Python that set ``measured`` (an array) and ``version`` (a text) from the dict of arrays ``batch``.

        ``network`` is a file of the exporter, ``weights`` one of the writer for it, which does not exist if
        the network has no weights; the lines refer to them by their names, in
        the current folder. ``batch["input"]`` is (N, C, H, W), without preprocessing, for images of ``input_shape``. Without
        ``parameter``, ``measured`` is the value ``output``; else the gradient of the neutral ``parameter`` for the gradient
        ``batch["output_gradient"]`` of that value, in prediction. The lines import nothing of multiseg.
        """
        ...
