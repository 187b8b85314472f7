"""Campaigns of random networks: every backend against float64, over the whole vocabulary."""

from multiseg.campaign.campaign import PAGE, fuzz
from multiseg.campaign.outcome import Outcome
from multiseg.campaign.result import Campaign

__all__ = ["PAGE", "Campaign", "Outcome", "fuzz"]
