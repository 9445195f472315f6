"""How a checkpoint's makers decode it: the sampling part of generation_config.json.

For evaluation only. GRPO's log-probabilities are those of the policy itself, at
rollout.temperature and without truncation.
"""

from dataclasses import dataclass
from pathlib import Path

from dig_jax.common.json_files import Fields, read_json, shown

# Settings that would change the distribution and are not computed here, with their neutral values.
_NEUTRAL = {
    "repetition_penalty": (None, 1, 0),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "no_repeat_ngram_size": (None, 0),
    "typical_p": (None, 1),
    "num_beams": (None, 1),
}


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen."""

    temperature: float  # 0 is greedy
    top_k: int = 0  # of the likeliest tokens; 0 = all
    top_p: float = 1.0  # smallest set of tokens with this much probability, (0, 1]; 1 = all
    min_p: float = 0.0  # of the likeliest token's probability, below which none is; 0 = all

    def __post_init__(self):
        for name, ok, rule in (
            ("temperature", self.temperature >= 0, "is below 0"),
            ("top_k", self.top_k >= 0, "is below 0"),
            ("top_p", 0 < self.top_p <= 1, "is outside (0, 1]"),
            ("min_p", 0 <= self.min_p <= 1, "is outside [0, 1]"),
        ):
            if not ok:
                raise ValueError(f"decoding: {name}={getattr(self, name)} {rule}")

    def __str__(self) -> str:
        if not self.temperature:
            return "greedy"
        cuts = [f"temperature {self.temperature}"]
        cuts += [f"top_k {self.top_k}"] if self.top_k else []
        cuts += [f"top_p {self.top_p}"] if self.top_p < 1 else []
        return ", ".join(cuts + ([f"min_p {self.min_p}"] if self.min_p else []))


def read_decoding(folder: str | Path) -> Decoding:
    """The decoding of a checkpoint folder: greedy unless its file says do_sample.

    A setting that the file lacks truncates nothing, as vLLM reads it (HF's `generate` would take
    top_k 50). Raises FileNotFoundError, or ValueError for a setting that is not computed.
    """
    path = Path(folder) / "generation_config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; copy it from the checkpoint that the weights came from, or "
            f"use --set eval.decoding=policy"
        )
    found = Fields(read_json(path), str(path))
    for name, neutral in _NEUTRAL.items():
        if found.get(name) not in neutral:
            raise ValueError(
                f"{path}: {name}={shown(found.get(name))} is not implemented; use --set "
                f"eval.decoding=policy, or set it to {neutral[1]} there"
            )
    if not (found.has("do_sample") and found.flag("do_sample")):
        return Decoding(0.0)
    if found.get("temperature") == 0:
        raise ValueError(f"{path}: temperature=0 with do_sample true; say do_sample false")
    temperature = found.number("temperature") if found.has("temperature") else 1.0
    top_k = found.count("top_k", least=0) if found.has("top_k") else 0
    top_p = found.number("top_p", most=1) if found.has("top_p") else 1.0
    min_p = found.number("min_p", least=0, most=1) if found.get("min_p") else 0.0
    return Decoding(temperature, top_k, top_p, min_p)
