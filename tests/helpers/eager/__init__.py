"""Worker-side modules that lower whatever may be lowered, whether it pays or not: what is small enough for tests never does."""
