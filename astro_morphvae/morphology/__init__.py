"""From latents and votes to morphology: labels, calibrated classifiers, scores and baselines."""

from .baselines import pca_features
from .classifier import FittedQuestion, MorphologyClassifier
from .evaluation import (
    compare_features,
    confusion_counts,
    evaluate,
    evaluate_predictions,
    label_confidence,
)
from .fitter import MorphologyFitter
from .labels import XU2023_QUESTIONS, LabelRule, Requirement, select_labels
from .transfer import evaluate_transfer, mcnemar_test, tabulate_transfer

__all__ = [
    "XU2023_QUESTIONS",
    "FittedQuestion",
    "LabelRule",
    "MorphologyClassifier",
    "MorphologyFitter",
    "Requirement",
    "compare_features",
    "confusion_counts",
    "evaluate",
    "evaluate_predictions",
    "evaluate_transfer",
    "label_confidence",
    "mcnemar_test",
    "pca_features",
    "select_labels",
    "tabulate_transfer",
]
