"""The parts of benchmarks/performance.py: each module's ``figures`` measures and yields figures."""
