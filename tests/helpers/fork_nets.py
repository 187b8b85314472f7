"""Small networks in the manner of public files for Caffe's forks: SegNet, ENet, PSPNet and ICNet, with 5 classes."""

from __future__ import annotations

from pathlib import Path

CLASSES = 5
SHAPES = {  # of the images; those of the labels are the same with one channel
    "segnet": (3, 36, 44),
    "enet": (3, 32, 32),
    "pspnet": (3, 33, 33),
    "icnet": (3, 33, 33),
}
DATA = {
    "segnet": 'type: "DenseImageData" dense_image_data_param { source: "train.txt" batch_size: 2 shuffle: true }',
    "enet": 'type: "DenseImageData" dense_image_data_param { source: "train.txt" batch_size: 2 new_height: 32 new_width: 32 }',
    "pspnet": 'type: "ImageSegData" image_data_param { source: "train.txt" batch_size: 2 label_type: PIXEL }',
    "icnet": 'type: "ImageSegData" image_data_param { source: "train.txt" batch_size: 2 label_type: PIXEL }',
}
SEGNET_BN = "scale_filler { value: 1 } shift_filler { value: 0.001 }"
PSPNET_BN = "slope_filler { value: 1 } bias_filler { value: 0 } momentum: 0.95 eps: 1e-5"


class _Text:
    """Lines of a prototxt; each method adds a layer to the blob ``last``."""

    def __init__(self, net: str) -> None:
        self.lines = [f'name: "{net}"', f'layer {{ name: "data" top: "data" top: "label" {DATA[net]} }}']
        self.last = "data"
        self.bn_fields = SEGNET_BN if net in ("segnet", "enet") else PSPNET_BN

    def add(self, name: str, kind: str, fields: str = "", bottoms: str | None = None, top: str | None = None) -> None:
        """Add a layer; bottoms and tops are separated by blanks."""
        blobs = [f'bottom: "{blob}"' for blob in (bottoms or self.last).split()]
        blobs += [f'top: "{blob}"' for blob in (top or name).split()]
        self.lines.append(f'layer {{ name: "{name}" type: "{kind}" {" ".join(blobs)} {fields} }}')
        self.last = (top or name).split()[0]

    def conv(self, name: str, outputs: int, kernel: int = 3, more: str = "", bottom: str | None = None) -> None:
        """Add a convolution that keeps the size, unless ``more`` has a stride or pad."""
        pad = "" if "pad" in more else f"pad: {kernel // 2}"
        fields = f'num_output: {outputs} kernel_size: {kernel} {pad} {more} weight_filler {{ type: "msra" }}'
        self.add(name, "Convolution", f"convolution_param {{ {fields} }}", bottom)

    def normal(self, name: str, activation: str = "ReLU") -> None:
        """Add a BN and an activation, both in place."""
        self.add(f"{name}_bn", "BN", f"bn_param {{ {self.bn_fields} }}", top=self.last)
        if activation:
            self.add(f"{name}_{activation.lower()}", activation, top=self.last)

    def block(self, name: str, outputs: int, kernel: int = 3, more: str = "", bottom: str | None = None) -> None:
        """Add convolution, BN and ReLU."""
        self.conv(name, outputs, kernel, more, bottom)
        self.normal(name)


def _segnet() -> _Text:
    net = _Text("segnet")
    for level, outputs in enumerate((16, 24, 32), 1):
        net.block(f"conv{level}_1", outputs)
        net.block(f"conv{level}_2", outputs)
        window = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
        net.add(f"pool{level}", "Pooling", window, top=f"pool{level} pool{level}_mask")
    sizes = {3: "upsample_h: 9 upsample_w: 11", 2: "upsample_w: 22 upsample_h: 18", 1: "scale: 2"}
    for level, outputs in ((3, 24), (2, 16), (1, 16)):
        net.add(f"upsample{level}", "Upsample", f"upsample_param {{ {sizes[level]} }}", f"{net.last} pool{level}_mask")
        net.block(f"conv{level}_D", outputs)
    net.conv("scores", CLASSES)
    return net


def _enet() -> _Text:
    net = _Text("enet")
    net.conv("initial_conv", 13, 3, "stride: 2")
    net.add("initial_pool", "Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }", "data")
    net.add("initial", "Concat", bottoms="initial_conv initial_pool")
    net.normal("initial", "PReLU")
    net.add("main", "Pooling", "pooling_param { pool: MAX kernel_size: 2 stride: 2 }", top="main mask")
    net.conv("main_conv", 32, 1)
    net.conv("reduce", 8, 2, "pad: 0 stride: 2", "initial")
    net.normal("reduce", "PReLU")
    net.conv("middle", 8)
    net.normal("middle", "PReLU")
    net.conv("expand", 32, 1)
    net.normal("expand", "")
    net.add("down", "Eltwise", "eltwise_param { operation: SUM }", "main_conv expand")
    net.add("down_prelu", "PReLU", top="down")
    net.conv("dilated", 16, 3, "pad: 2 dilation: 2")
    net.normal("dilated", "PReLU")
    tall, wide = "kernel_h: 5 kernel_w: 1 pad_h: 2 pad_w: 0", "kernel_h: 1 kernel_w: 5 pad_h: 0 pad_w: 2"
    for name, window in (("tall", tall), ("wide", wide)):
        net.add(
            name, "Convolution", f'convolution_param {{ num_output: 16 {window} weight_filler {{ type: "msra" }} }}'
        )
    net.normal("wide", "PReLU")
    net.conv("again", 16, 1)
    net.add("up", "Upsample", bottoms="again mask")
    net.normal("up", "PReLU")
    net.add("scores", "Deconvolution", f"convolution_param {{ num_output: {CLASSES} kernel_size: 2 stride: 2 }}")
    return net


def _pspnet() -> _Text:
    net = _Text("pspnet")
    net.block("conv1", 16, 3, "stride: 2")
    net.block("conv2", 24, 3, "stride: 2")
    net.block("res_reduce", 12, 1)
    net.block("res_middle", 12, 3, "pad: 2 dilation: 2")
    net.conv("res_expand", 24, 1)
    net.normal("res_expand", "")
    net.add("res", "Eltwise", bottoms="conv2 res_expand")
    net.add("res_relu", "ReLU", top="res")
    levels = []
    for kernel in (9, 5, 3):
        stride = {9: 9, 5: 4, 3: 3}[kernel]
        net.add(
            f"pool{kernel}", "Pooling", f"pooling_param {{ pool: AVE kernel_size: {kernel} stride: {stride} }}", "res"
        )
        net.block(f"pool{kernel}_conv", 8, 1)
        net.add(f"pool{kernel}_interp", "Interp", "interp_param { height: 9 width: 9 }")
        levels.append(net.last)
    net.add("pyramid", "Concat", bottoms=f"res {' '.join(levels)}")
    net.block("conv5", 24)
    net.conv("conv6", CLASSES, 1)
    net.add("scores", "Interp", "interp_param { zoom_factor: 4 }")
    return net


def _icnet() -> _Text:
    net = _Text("icnet")
    net.block("full1", 8, 3, "stride: 2")
    net.block("full2", 16, 3, "stride: 2")
    net.add("half", "Interp", "interp_param { shrink_factor: 2 }", "data")
    net.block("half1", 12, 3, "stride: 2")
    net.block("half2", 16, 3, "stride: 2")
    net.add("quarter", "Interp", "interp_param { shrink_factor: 2 }")
    net.block("quarter1", 24)
    net.add("quarter_up", "Interp", "interp_param { zoom_factor: 2 pad_beg: 0 pad_end: 0 }")
    net.conv("quarter2", 24, 3, "pad: 2 dilation: 2")
    net.normal("quarter2", "")
    net.conv("half_proj", 24, 1, bottom="half2")
    net.normal("half_proj", "")
    net.add("sum", "Eltwise", bottoms="quarter2 half_proj")
    net.add("sum_relu", "ReLU", top="sum")
    net.add("sum_up", "Interp", "interp_param { zoom_factor: 2 }")
    net.conv("sum2", 16, 3, "pad: 2 dilation: 2")
    net.conv("full_proj", 16, 1, bottom="full2")
    net.add("both", "Eltwise", bottoms="sum2 full_proj")
    net.conv("conv6", CLASSES, 1)
    net.add("scores", "Interp", "interp_param { zoom_factor: 4 }")
    return net


_NETS = {"segnet": _segnet, "enet": _enet, "pspnet": _pspnet, "icnet": _icnet}


def write(net: str, folder: Path) -> Path:
    """Write the prototxt of a network, and return its path."""
    made = _NETS[net]()
    made.add("loss", "SoftmaxWithLoss", "loss_param { ignore_label: 255 }", "scores label")
    path = folder / f"{net}.prototxt"
    path.write_text("\n".join(made.lines) + "\n")
    return path
