"""A number stands with its interval: scored answers as rows, and what they amount to.

rows         a pair's boxes, which found which, and every metric
metrics      the metrics and their names
statistics   means with bootstrap intervals
table        evaluations as cells
ratios       weighted sums of ratios, with intervals over clusters
paired       two sides of the same questions: difference, p, what could be shown

Imports: boxes, common, config, data.feed, reward.
"""
