"""Golden files: a float64 reference that is kept, so that one framework alone is checked against it later."""
