"""The splits that a run will read, opened before anything expensive starts."""

from dig_jax.config import Config
from dig_jax.data.feed.curriculum import index_table
from dig_jax.data.feed.fetch import render_root
from dig_jax.data.feed.source import PairSource
from dig_jax.inputs.images import Size


def check_data(cfg: Config, size: Size | None = None) -> dict[str, int]:
    """Opens every split a run will read; split -> number of pairs.

    size   (height, width) that `train_pairs` will be asked for; with it the decoded copies
           that cfg.data.cache wants are made here already, by default there

    Call it before anything expensive: it raises whatever would stop the run later (a missing
    folder, a broken shard, a wrong image size, too few pairs).
    """
    cache = cfg.data.cache if size else "none"
    sizes = {name: len(PairSource(cfg.data, name, size, cache=cache)) for name in drawn_splits(cfg)}
    if sizes:
        index_table(cfg, sizes)
    for name in scored_splits(cfg):
        source = PairSource(cfg.data, name)
        check_scored(cfg, name, source)
        sizes[name] = len(source)
    return sizes


def drawn_splits(cfg: Config) -> list[str]:
    """Buckets that some stage draws from; none where no pairs are learned from."""
    if cfg.learner == "sft" and not cfg.sft.pairs_weight:
        return []
    stages = cfg.curriculum.stages
    return [b for b in cfg.data.buckets if any(stage.weights.get(b, 0) > 0 for stage in stages)]


def scored_splits(cfg: Config) -> list[str]:
    """data.eval_split, and those beside it that the run validates on.

    None where no split is learned from and nothing validated.
    """
    if not drawn_splits(cfg) and not cfg.eval.every:
        return []
    beside = (*cfg.eval.splits, *filter(None, [cfg.eval.controls])) if cfg.eval.every else ()
    return list(dict.fromkeys((cfg.data.eval_split, *beside)))


def check_scored(cfg: Config, split: str, source: PairSource) -> None:
    """Raises ValueError where one of `scored_splits` is too small, or a control has a box."""
    if split == cfg.data.eval_split:
        check_enough(cfg, split, source)
    if split == cfg.eval.controls and cfg.eval.every:
        _check_controls(cfg, source)


def check_enough(cfg: Config, split: str, source: PairSource) -> None:
    if len(source) < cfg.eval.pairs:
        raise ValueError(
            f"eval.pairs={cfg.eval.pairs}, but {cfg.data.root}/{split} holds "
            f"{len(source)}; make more with `python -m dig_jax.data render "
            f"--root {render_root(cfg.data.root)} --split {split} ...` or use "
            f"--set eval.pairs={len(source)}"
        )


def _check_controls(cfg: Config, source: PairSource) -> None:
    """The right answer to a control is an empty list."""
    name = cfg.eval.controls
    for index in range(min(cfg.eval.pairs, len(source))):
        boxes = len(source.true_boxes(index))
        if boxes:
            raise ValueError(
                f"eval.controls={name!r}, but pair {index} of {cfg.data.root}/{name} has "
                f"{boxes} differences; name a split of identical pairs, such as test_same, or "
                f"list this one under eval.splits"
            )
