"""What every scored pair has, and how a table names it."""

METRICS = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1@{threshold:g}",
    "iou": "mean IoU",
    "format": "format rate",
    "count_ok": "count accuracy",
    "reward": "mean reward",
}
