"""From stored activations to directions, with the statistics that make them believable."""

from .controls import bag_of_words, shuffle_labels
from .dataset import Dataset, matrix
from .fit import Sweep, fit_probes
from .metrics import auroc, group_bootstrap, tpr_at_fpr
from .probe import Probe
from .splits import check_whole, group_folds
from .vectors import random_vectors, steering_vector, vector_from_stores

__all__ = [
    "Dataset",
    "Probe",
    "Sweep",
    "auroc",
    "bag_of_words",
    "check_whole",
    "fit_probes",
    "group_bootstrap",
    "group_folds",
    "matrix",
    "random_vectors",
    "shuffle_labels",
    "steering_vector",
    "tpr_at_fpr",
    "vector_from_stores",
]
