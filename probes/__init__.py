"""From stored activations to directions, with the statistics that make them believable."""

from .ablation import ablate
from .categories import fit_categories
from .controls import bag_of_words, random_directions, shuffle_labels
from .dataset import Dataset, matrix
from .decision import agreement, anchors, decision_points
from .delay import alarm_threshold, delay
from .fit import fit_probes
from .heads import attribute
from .kinds import KINDS
from .metrics import MEASURES, auroc, group_bootstrap, measure, tpr_at_fpr
from .moments import Moments
from .probe import Probe
from .samples import sample_sizes
from .sequence import fit_sequence
from .splits import Holdout, check_whole, group_folds, holdouts
from .streaming import gather, tell
from .subspace import steering_subspace, subspace_from_stores
from .sweep import Sweep, ranked
from .timing import cliff, curves, detectability, earliest
from .vectors import random_vectors, steering_vector, vector_from_stores

__all__ = [
    "KINDS",
    "MEASURES",
    "Dataset",
    "Holdout",
    "Moments",
    "Probe",
    "Sweep",
    "ablate",
    "agreement",
    "alarm_threshold",
    "anchors",
    "attribute",
    "auroc",
    "bag_of_words",
    "check_whole",
    "cliff",
    "curves",
    "decision_points",
    "delay",
    "detectability",
    "earliest",
    "fit_categories",
    "fit_probes",
    "fit_sequence",
    "gather",
    "group_bootstrap",
    "group_folds",
    "holdouts",
    "matrix",
    "measure",
    "random_directions",
    "random_vectors",
    "ranked",
    "sample_sizes",
    "shuffle_labels",
    "steering_subspace",
    "steering_vector",
    "subspace_from_stores",
    "tell",
    "tpr_at_fpr",
    "vector_from_stores",
]
