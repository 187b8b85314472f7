"""The Caffe backend of multiseg: its declaration. multiseg_caffe.network is the code that runs pycaffe."""

from multiseg.backend import Backend
from multiseg_caffe import openblas
from multiseg_caffe.kinds import KINDS

backend = Backend(
    name="caffe",
    title="Caffe",
    module="multiseg_caffe.network",
    not_distributed="Caffe distributes training only among the GPUs of one machine, and only with its own data layers",
    framework="caffe (pycaffe)",
    install="multiseg install-caffe",
    kinds=KINDS,
    reader="multiseg_caffe.reader",
    reader_needs_framework=False,
    exporter="multiseg_caffe.exporting:source",
    mean="multiseg_caffe.sources:file_mean",
    cropping="multiseg_caffe.sources:file_cropping",
    notes="multiseg_caffe.notes:of_file",
    open_classes="multiseg_caffe.sources:leaves_classes_open",
    clips_losses=True,
    weights_format="caffemodel",
    writer="multiseg_caffe.weights_files:write",
    alone="multiseg_caffe.alone:lines",
    writer_needs_framework=False,
    default_model="multiseg_models:fcn.prototxt",
    data_order="NCHW",
    channel_order="BGR",
    learning_rate=1e-7,
    batch_size=16,  # DIGITS' default for a file without batch_size; the tutorial's file sets 4
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
    # the solver that DIGITS generates: momentum 0.9 where Caffe has one, weight decay 0.01 x learning rate; else Caffe's defaults
    solvers={
        "sgd": {"momentum": 0.9, "weight_decay_per_rate": 0.01},
        "nesterov": {"momentum": 0.9, "weight_decay_per_rate": 0.01},
        "adagrad": {"delta": 1e-8, "weight_decay_per_rate": 0.01},
        "rmsprop": {"rms_decay": 0.99, "delta": 1e-8, "weight_decay_per_rate": 0.01},
        "adadelta": {"momentum": 0.9, "delta": 1e-8, "weight_decay_per_rate": 0.01},
        "adam": {"momentum": 0.9, "momentum2": 0.999, "delta": 1e-8, "weight_decay_per_rate": 0.01},
    },
    environment={"GLOG_minloglevel": "1", "GLOG_logtostderr": "1", **openblas.variables()},
)
