"""A folder per room of dig_jax; what several of them need lies here.

tiny_model      a small random Qwen3-VL, its prompts and images
corpora         splits of small pairs, painted without Blender by `fake_worker`
google_storage  a stand-in for Google's storage on this machine
hf_outputs      what Hugging Face's model and processor made of small checkpoints and prompts
templates       a chat template that opens a thought
"""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
HF_OUTPUTS = TESTS / "hf_outputs"
THINKING = TESTS / "templates" / "thinking.jinja"
FAKE_WORKER = (sys.executable, str(TESTS / "fake_worker.py"))  # paints instead of rendering
