"""A server as a short script would be: `generate` of Hugging Face's model, one request at a time.

    .venv-parity/bin/python -m scripts.bench.hf_server --source assets/tiny_qwen3vl

What `scripts.bench.serve --theirs` starts beside ours. Messages and pictures are read by our own
code, which costs both sides the same; the model, its cache and the choice of tokens are theirs.
Torch has one thread. Needs torch: the environment of scripts/parity.sh.
"""

import argparse
import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np

from dig_jax.common.commandline import place_of
from dig_jax.hf.weights import read_model_config
from dig_jax.inputs.images import prepare, read_rules
from dig_jax.inputs.picture_files import read_picture
from dig_jax.inputs.prompt import decode_answers, load_processor, render_turns
from dig_jax.model.logprob import banned_tokens
from dig_jax.serve.limits import Limits
from dig_jax.serve.messages import read_messages
from scripts.bench import hf_side

LIMITS = Limits(pictures=2, letters=10**6, answers=1, most=4096)


def answering(folder: str) -> Callable[[dict], dict]:
    """answer(body of a greedy request) -> body of its answer, as far as the benchmark reads it."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    torch.set_num_threads(1)
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    config, rules = read_model_config(folder), read_rules(folder)
    processor = load_processor(folder)
    banned = np.flatnonzero(banned_tokens(config)).tolist()

    @torch.no_grad()
    def answer(body: dict) -> dict:
        turns, files = read_messages(body["messages"], LIMITS)
        shown = [prepare(read_picture(data), rules, where) for where, data in files]
        given = inputs(config, render_turns(processor, turns), shown)
        made = model.generate(
            **given,
            do_sample=False,
            max_new_tokens=body["max_tokens"],
            eos_token_id=list(config.eos_tokens),
            pad_token_id=config.pad_token,
            suppress_tokens=banned,
        )
        tokens = made[0, given["input_ids"].shape[1] :].numpy()
        text = decode_answers(processor, tokens, np.array(len(tokens)), stops=config.eos_tokens)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}}
        return {"choices": [choice], "usage": {"completion_tokens": len(tokens)}}

    return answer


def inputs(config, ids: list[int], shown: list[np.ndarray]) -> dict:
    """What `generate` is given for one request; its pictures u8[y, x, 3] are of one size."""
    import torch

    if shown:
        return hf_side.inputs(config, [ids], np.stack(shown)[None])
    tokens = torch.tensor([ids])
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def make_server(answer: Callable[[dict], dict], port: int) -> HTTPServer:
    """Listens on this machine; whoever comes while another is answered waits."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            told = json.dumps(answer(body)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_) -> None:
            return None

    class Server(HTTPServer):
        request_queue_size = 128  # connections that wait

    return Server(("127.0.0.1", port), Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", type=place_of, default="assets/tiny_qwen3vl")
    parser.add_argument("--port", type=int, default=0)
    args = parser.parse_args()
    server = make_server(answering(str(args.source)), args.port)
    print(f"ready in a moment: http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
