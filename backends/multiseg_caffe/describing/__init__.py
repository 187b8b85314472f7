"""Infer a Caffe network's shapes, and describe it as layers in the vocabulary of multiseg.topology."""
