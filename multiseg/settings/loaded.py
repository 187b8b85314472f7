"""The settings of a job after its network was loaded: the resolved settings with what the network file decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from multiseg.errors import SettingsError, setting
from multiseg.settings.metrics import DEFAULT
from multiseg.settings.resolved import Settings


@dataclass(frozen=True, kw_only=True)
class LoadedSettings(Settings):
    """Resolved settings whose batch sizes and device are those of the loaded network, and whose metric is known.

    ``network`` is the network's description of itself (:meth:`multiseg.network.Network.describe`): parameters, lowered layers and
    so on. ``loss`` stays what was requested; ``loss_name`` is what the network computes, in words where the loss is its own.
    """

    batch_size: int
    val_batch_size: int
    metric: str
    loss_name: str
    network: Mapping[str, Any]

    @classmethod
    def of(cls, settings: Settings, network: Mapping[str, Any]) -> LoadedSettings:
        """Return the settings of a training whose loaded network describes itself as ``network``.

        Raises SettingsError if the mean is subtracted from images that the network reads as integers, or if they are divided.
        """
        if "input_type" in network and settings.divide_std is not None:
            raise SettingsError(
                f"{setting('divide_std', settings.divide_std)}: the input of {settings.model.name} is {network['input_type']}, "
                f"which cannot hold fractions; leave {setting('divide_std')} out"
            )
        if "input_type" in network and settings.subtract_mean != "none":
            raise SettingsError(
                f"{setting('subtract_mean', settings.subtract_mean)}: the input of {settings.model.name} is "
                f"{network['input_type']}, which cannot hold differences from a mean; specify {setting('subtract_mean', 'none')}"
            )
        values = {item.name: getattr(settings, item.name) for item in fields(settings)}
        decided = {name: network[name] for name in ("batch_size", "val_batch_size", "device")}
        decided["metric"] = settings.metric or DEFAULT
        return cls(**{**values, **decided}, loss_name=network["loss"], network=network)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as in job.json, where ``loss`` is what the network computes."""
        return {**super().to_json(), "loss": self.loss_name}
