"""Start of a backend worker, run as a script by whichever interpreter has the framework.

That interpreter needs numpy and the framework, not multiseg: the packages named on the command line are imported from
the folders named there, which are those of the program that started the worker.
"""

import importlib.util
import json
import sys


class PackageFinder:
    """Finds the given top-level packages in the given folders, before all other finders."""

    def __init__(self, folders):  # type: ignore[no-untyped-def]
        self.folders = folders

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        folder = self.folders.get(name)
        if folder is None:
            return None
        return importlib.util.spec_from_file_location(
            name, folder + "/__init__.py", submodule_search_locations=[folder]
        )


if __name__ == "__main__":
    del sys.path[0]  # this script's folder: its modules are multiseg.worker's, not top-level ones
    connection_fd, lifeline_fd, scratch, packages = (
        int(sys.argv[1]),
        int(sys.argv[2]),
        sys.argv[3],
        json.loads(sys.argv[4]),
    )
    sys.meta_path.insert(0, PackageFinder(packages))  # type: ignore
    sys.argv = sys.argv[:1]
    from multiseg.worker.server import serve

    serve(connection_fd, lifeline_fd, scratch)
