"""Run folders: names, reading, writing, snapshots, and testing with what was trained."""
