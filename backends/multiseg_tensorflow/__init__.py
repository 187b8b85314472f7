"""The TensorFlow backend's declaration; it does not import tensorflow. multiseg_tensorflow.network does."""

from multiseg.backend import Backend
from multiseg_tensorflow.kinds import KINDS

backend = Backend(
    name="tensorflow",
    title="TensorFlow",
    module="multiseg_tensorflow.network",
    not_distributed="TensorFlow's multi-worker strategies run TF 2 training loops, but this backend loads TF 1 graphs",
    framework="tensorflow",
    install="pip install 'multiseg[tensorflow]'",
    kinds=KINDS,
    reader="multiseg_tensorflow.reader",
    reader_needs_framework=True,
    exporter="multiseg_tensorflow.exporting:source",
    open_classes="multiseg_tensorflow.kinds:leaves_classes_open",
    known_faults="multiseg_tensorflow.faults:known",
    weights_format="tf",
    writer="multiseg_tensorflow.weights_files:write",
    alone="multiseg_tensorflow.alone:lines",
    default_model="multiseg_models:fcn_tensorflow.py",
    data_order="NHWC",
    channel_order="RGB",
    learning_rate=1e-5,
    batch_size=16,
    val_batch_size=16,
    loss="the file's own",
    losses=(
        "l1",
        "smooth_l1",
        "l2",
        "huber",
        "cross_entropy",
        "dice",
        "cross_entropy+dice",
        "focal",
        "binary_cross_entropy",
    ),
    # the defaults of DIGITS for TensorFlow: SGD without momentum, RMSProp with momentum 0.9; otherwise TensorFlow's defaults
    solvers={
        "sgd": {"momentum": 0.0},
        "nesterov": {"momentum": 0.9},
        "adagrad": {"initial_accumulator": 0.1},
        "rmsprop": {"rms_decay": 0.9, "momentum": 0.9, "delta": 1e-10},
        "adadelta": {"momentum": 0.95, "delta": 1e-8},
        "adam": {"momentum": 0.9, "momentum2": 0.999, "delta": 1e-8},
        "ftrl": {"initial_accumulator": 0.1, "l1": 0.0, "l2": 0.0},
    },
    environment={"TF_CPP_MIN_LOG_LEVEL": "2", "TF_ENABLE_ONEDNN_OPTS": "1"},
)
