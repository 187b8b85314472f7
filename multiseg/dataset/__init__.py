"""The dataset that all backends share: LMDB databases of Caffe's Datum records, laid out as DIGITS does."""

from multiseg.dataset.dataset import Dataset
from multiseg.dataset.reading import Split, open_split

__all__ = ["Dataset", "Split", "open_split"]
