"""Describe a network as layers in the vocabulary of multiseg.topology."""
