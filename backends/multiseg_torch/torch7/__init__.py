"""Torch7's network files and weights, without Torch7: Lua in a sandbox, .t7 files, and modules built from either."""
