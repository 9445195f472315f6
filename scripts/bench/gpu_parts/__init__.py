"""The parts of `scripts.bench.gpu`, each run in a process of its own."""
