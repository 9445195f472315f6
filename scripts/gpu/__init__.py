"""The parts of `scripts.bench_gpu`, each run in a process of its own."""
