"""Offline evaluation: a policy's actions beside those of recorded episodes."""

from .evaluation import Evaluation, Trajectory, evaluate_trajectory
from .predictors import ModalityPredictor, ObservationPredictor, Predictor, predictor_of
from .report import check_report_folder, write_report

__all__ = [
    "Evaluation",
    "ModalityPredictor",
    "ObservationPredictor",
    "Predictor",
    "Trajectory",
    "check_report_folder",
    "evaluate_trajectory",
    "predictor_of",
    "write_report",
]
