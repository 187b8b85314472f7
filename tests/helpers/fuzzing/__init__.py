"""Fuzzing of every reader of files and messages: `python -m helpers.fuzzing --inputs 100000` in the folder tests."""
