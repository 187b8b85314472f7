"""The training loss of a check, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from multiseg import reference
from multiseg.network import NetworkSpec
from multiseg.parity.twin import scores_of
from multiseg.reference.bounded import Array, Bounded
from multiseg.reference.class_losses import cross_entropy
from multiseg.reference.losses import OF_CLASSES, named
from multiseg.settings.losses import BINARY
from multiseg.topology import Topology


@dataclass(frozen=True)
class Loss:
    """The training loss: the one called ``name``, or with None the file's own.

    The reference can compute a file's own loss only if it is the cross entropy of class indices (``classes``), of which it leaves
    out those ``ignored``; ``words`` describe it. ``weights`` are class weights of a named loss.
    """

    name: str | None
    classes: bool
    words: str
    options: Mapping[str, float]
    ignored: frozenset[int] = frozenset()
    weights: tuple[float, ...] = ()

    @classmethod
    def of(
        cls,
        topology: Topology,
        name: str | None,
        classes: bool,
        spec: NetworkSpec | None = None,
    ) -> Loss:
        """Return the named loss, or the file's own; ``classes``: labels are class indices. A file may have no loss of its own.

        ``spec`` has the parameters of the named loss, the class weights, and a label that does not count, besides those that the
        file's own loss ignores.
        """
        known = classes and (topology.loss is None or topology.cross_entropy)
        ignored = {spec.ignore_index} if spec and spec.ignore_index is not None else set()
        ignored |= set((topology.objective or {}).get("ignore", ())) if name is None else set()
        options, weights = (spec.loss_options, spec.class_weights) if spec else ({}, ())
        return cls(name, known, topology.loss or "none", options, frozenset(ignored), weights)

    def at(self, trace: reference.Trace, labels: Array) -> tuple[list[Bounded], Bounded, reference.Trace]:
        """Return the exact value of the loss, then Caffe's if it differs; its gradient; the pass whose output that is of.

        Raises NotComputable for a file's own loss that is not the cross entropy.
        """
        if self.name is not None:
            compared = scores_of(trace, self.name == BINARY) if self.name in OF_CLASSES else trace
            return *named(self.name, compared.output, labels, self.options, self.weights, self.ignored), compared
        if not self.classes:
            raise reference.NotComputable(f"the loss is the file's own ({self.words})")
        scores = scores_of(trace)
        return *cross_entropy(scores.output, labels, self.ignored), scores
