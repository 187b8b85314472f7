"""Describe a TensorFlow graph as layers in the vocabulary of multiseg.topology."""
