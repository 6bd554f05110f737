"""The statistics of success rates: intervals, comparisons of two policies or more, planning, sequential comparison."""

from .intervals import (
    Interval,
    clopper_pearson_interval,
    latency_percentiles,
    wilson_interval,
)
from .multiple import compact_letters, holm
from .paired import PairCounts, mcnemar_mid_p, mcnemar_p, paired_interval, paired_probability_better
from .planning import trials_for_half_width
from .sequential import SequentialTest
from .stratified import stratified_interval
from .unpaired import BOSCHLOO_TRIALS, boschloo_p, fisher_p, unpaired_interval, unpaired_probability_better

__all__ = [
    "BOSCHLOO_TRIALS",
    "Interval",
    "PairCounts",
    "SequentialTest",
    "boschloo_p",
    "clopper_pearson_interval",
    "compact_letters",
    "fisher_p",
    "holm",
    "latency_percentiles",
    "mcnemar_mid_p",
    "mcnemar_p",
    "paired_interval",
    "paired_probability_better",
    "stratified_interval",
    "trials_for_half_width",
    "unpaired_interval",
    "unpaired_probability_better",
    "wilson_interval",
]
