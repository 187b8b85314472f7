"""Declaration of the PyTorch backend. The code that runs torch is in multiseg_torch.network."""

from multiseg.backend import Backend
from multiseg_torch.kinds import KINDS

backend = Backend(
    name="torch",
    title="PyTorch",
    module="multiseg_torch.network",
    distributed="multiseg_torch.distributed",
    compiles=True,
    precisions=("float32", "bf16"),
    framework="torch",
    install="pip install 'multiseg[torch]'",
    kinds=KINDS,
    reader="multiseg_torch.reader",
    reader_needs_framework=True,
    exporter="multiseg_torch.exporting:source",
    onnx="multiseg_torch.onnx_export:write",
    open_classes="multiseg_torch.kinds:leaves_classes_open",
    weights_format="pt",
    writer="multiseg_torch.weights_files:write",
    alone="multiseg_torch.alone:lines",
    default_model="multiseg_models:fcn_torch.py",
    data_order="NCHW",
    channel_order="RGB",
    learning_rate=1e-3,
    batch_size=16,  # DIGITS' default for a file that specifies none; the tutorial's file specifies 4 and 32
    val_batch_size=16,
    loss="smooth_l1",
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
    # DIGITS passes momentum 0.9 (which only some solvers use) and weight decay 1e-4 to Torch7; the rest are PyTorch's defaults
    solvers={
        # Torch7's optim.sgd, whose dampening is its momentum unless set
        "sgd": {"momentum": 0.9, "dampening": 0.9, "weight_decay": 1e-4},
        "nesterov": {"momentum": 0.9, "weight_decay": 1e-4},
        "adagrad": {"delta": 1e-10, "weight_decay": 1e-4},
        "rmsprop": {"rms_decay": 0.99, "momentum": 0.0, "delta": 1e-8, "weight_decay": 1e-4},
        "adadelta": {"momentum": 0.9, "delta": 1e-6, "weight_decay": 1e-4},
        "adam": {"momentum": 0.9, "momentum2": 0.999, "delta": 1e-8, "weight_decay": 1e-4},
        # beyond DIGITS, with PyTorch's own weight decay
        "adamw": {"momentum": 0.9, "momentum2": 0.999, "delta": 1e-8, "weight_decay": 0.01},
        "nadam": {"momentum": 0.9, "momentum2": 0.999, "momentum_decay": 0.004, "delta": 1e-8},
        "radam": {"momentum": 0.9, "momentum2": 0.999, "delta": 1e-8},
    },
    # OpenMP's threads wait actively for up to half a millisecond, then sleep (libgomp's manual). On idle cores that is as fast as
    # its default of milliseconds, and shorter times are not; while another program uses a core, shorter times are faster
    environment={"GOMP_SPINCOUNT": "10000"},
)
