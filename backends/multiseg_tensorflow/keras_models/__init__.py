"""Keras models in files (`.keras`, `.h5`) as networks: read without running code of the file, traced to TensorFlow graphs."""
