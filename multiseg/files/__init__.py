"""Files: reading regular ones, writing durable ones, locks, HDF5, and temporary folders."""

from multiseg.files.locking import try_lock
from multiseg.files.reading import (
    LINK,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_text,
    sha256_of,
    tail,
)  # fmt: skip
from multiseg.files.writing import (
    json_text,
    make_folder,
    open_own,
    remove_empty,
    rename,
    sync_one,
    sync_tree,
    target,
    write_bytes,
    write_json,
    write_text,
)  # fmt: skip

__all__ = [
    "LINK", "json_text", "make_folder", "open_own", "open_regular", "parse_json", "read_bytes", "read_json", "read_text",
    "remove_empty", "rename", "sha256_of", "sync_one", "sync_tree", "tail", "target", "try_lock", "write_bytes", "write_json",
    "write_text",
]  # fmt: skip
