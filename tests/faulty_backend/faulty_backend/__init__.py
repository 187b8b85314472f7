"""PyTorch with a mistake: the backend of somebody who got one thing wrong. MULTISEG_FAULT, or a file, says which."""

from __future__ import annotations

from dataclasses import replace

from multiseg_torch import backend as torch_backend

from multiseg.backend import FileKind

backend = replace(
    torch_backend,
    name="faulty",
    title="Faulty",
    module="faulty_backend.network",
    # no files are its own: the networks that it is given are written for it, as PyTorch's source
    kinds=(FileKind("Faulty network", (".py",), "network", lambda head, path: False),),
    weights_format="",
)
