"""Means over scored pairs, with their bootstrap intervals."""

import numpy as np

from dig_jax.data.feed.batch import KINDS
from dig_jax.scoring.metrics import METRICS


def summarize(rows: list[dict], *, resamples: int, seed: int = 0) -> dict[str, list[float]]:
    """metric -> [mean, low, high]: 95 % percentile bootstrap over pairs.

    The metrics are those of `values_by_metric`. The seed is the same for every metric, so metrics
    of the same pairs share their resamples.
    """
    values = values_by_metric(rows)
    return {name: bootstrap(each, resamples, seed) for name, each in values.items()}


def values_by_metric(rows: list[dict]) -> dict[str, list[float]]:
    """metric -> its value for each pair that it is defined for.

    METRICS for all pairs; F1, count accuracy and predicted boxes by the true number of
    differences ("f1_n2"); recall by the type of the difference ("recall_color"): of a pair, the
    mean over its differences of that type.
    """
    values = {name: [row[name] for row in rows] for name in METRICS}
    for n in sorted({row["n_true"] for row in rows}):
        some = [row for row in rows if row["n_true"] == n]
        for name in ("f1", "count_ok", "n_pred"):
            values[f"{name}_n{n}"] = [row[name] for row in some]
    for kind in KINDS:
        found = [_found_of(row, kind) for row in rows if kind in row["kinds"]]
        if found:
            values[f"recall_{kind}"] = found
    return values


def _found_of(row: dict, kind: str) -> float:
    shares = zip(row["kinds"], row["found"], strict=True)
    return float(np.mean([share for name, share in shares if name == kind]))


def bootstrap(values: list[float], resamples: int, seed: int) -> list[float]:
    """Mean of one value per pair with the 2.5 % and 97.5 % quantiles of resampled means."""
    values = np.asarray(values, np.float64)
    draws = np.random.default_rng(seed).integers(0, len(values), (resamples, len(values)))
    low, high = np.quantile(values[draws].mean(-1), [0.025, 0.975])
    return [float(values.mean()), float(low), float(high)]
