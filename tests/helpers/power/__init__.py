"""Power cuts and failing system calls, for programs as they are: what they do to files is observed at the kernel's interface.

``notify`` lets a program wait at each system call that changes files, ``calls`` decodes these calls, ``recorder`` runs a program
under them, ``disk`` is a model of a disk that has only what was synchronised, and ``states`` are its states after a power cut.
"""
