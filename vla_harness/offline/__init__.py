"""Offline evaluation: a policy's actions beside those of recorded episodes."""

from .evaluation import Evaluation, Trajectory, evaluate_trajectory
from .predictors import ModalityPredictor, ObservationPredictor, Predictor, predictor_of
from .report import write_report

__all__ = [
    "Evaluation",
    "ModalityPredictor",
    "ObservationPredictor",
    "Predictor",
    "Trajectory",
    "evaluate_trajectory",
    "predictor_of",
    "write_report",
]
