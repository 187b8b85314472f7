"""Migrate from Caffe to PyTorch and ONNX, checking each step: train, convert, prove parity, continue training, export, run.

pip install 'multiseg[torch,onnx]'; multiseg install-caffe
python examples/migrate_from_caffe.py OUT --count 2000 --epochs 6
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

import multiseg


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=2000, help="pairs of images")
    parser.add_argument("--epochs", type=int, default=6, help="in Caffe, and again in PyTorch")
    arguments = parser.parse_args()
    out = arguments.out

    images = multiseg.create_images(out / "images", count=arguments.count, seed=1)
    dataset = multiseg.Dataset.create(out / "dataset", input=images / "input", target=images / "target", seed=1)

    print("1. train in Caffe with the tutorial's recipe")
    caffe = multiseg.Job(dataset=dataset, backend="caffe", epochs=arguments.epochs, seed=1).train(out / "caffe")
    print(f"   mean difference per pixel {caffe.history[-1]['l1']:.2f}")

    print("2. convert network and weights to PyTorch: a source file and a state_dict")
    converted = multiseg.convert(caffe, "pt", out / "fcn.pt", with_network=out / "fcn.py")
    print(f"   {converted.path}, {len(converted.matched)} parameters")

    print("3. prove that both compute and train alike, every number against float64")
    parity = multiseg.check_parity(
        dataset, models=[out / "caffe", out / "fcn.py"], weights=[out / "caffe", out / "fcn.pt"], steps=3
    )
    parity.to_html(out / "parity.html")
    print(f"   {parity}")
    assert parity.ok

    print("4. continue the training in PyTorch, with Caffe's momentum")
    job = multiseg.Job(
        dataset=dataset, backend="torch", model=out / "fcn.py", weights=out / "caffe", epochs=arguments.epochs, seed=2
    )
    torch = job.train(out / "torch")
    before, after = torch.history[0]["l1"], torch.history[-1]["l1"]
    print(f"   mean difference per pixel {before:.2f}, then {after:.2f}")
    assert abs(before - caffe.history[-1]["l1"]) < 1e-4 * before
    assert torch.summary["weights"]["solver_state"]["slots"] == {"momentum": "as displacement"}

    print("5. export to ONNX, and run it with onnxruntime")
    multiseg.export(torch, "onnx", out / "fcn.onnx")
    session = onnxruntime.InferenceSession(out / "fcn.onnx", providers=["CPUExecutionProvider"])
    mean = np.array(json.loads(session.get_modelmeta().custom_metadata_map["multiseg.mean"]), np.float32)
    grid = np.asarray(Image.open(images / "grid.png"))[None, None]
    (output,) = session.run(None, {session.get_inputs()[0].name: grid.astype(np.float32) - mean})
    expected = torch.test_one(images / "grid.png", resize=False)
    difference = float(np.abs(output[0] - expected.array).max())
    print(f"   the large image differs from PyTorch's output by at most {difference:.2g}, of 255")
    assert difference < 0.01
    Image.fromarray(np.clip(output[0, 0], 0, 255).astype(np.uint8)).save(out / "grid-onnx.png")


if __name__ == "__main__":
    main()
