"""Format, F1 and IoU reward after optimal matching of boxes."""
