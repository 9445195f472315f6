"""Qwen3-VL as pure functions over a dictionary of parameters."""
