"""What a run is asked, in the order in which it is told: questions, and for each the figures that answer it.

The one list behind the report, the notebook and exported images. A drawing names the tables its functions take, in their order; one that
is `further` needs another command than the rest of its section, and is left out where that was not run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from .figures.attacks import attack_success_by_attack, read_attacks
from .figures.best_layer import best_layer_by_span, read_detection
from .figures.blindspots import excess_by_category, read_blind_spots
from .figures.capability import capability, read_capability
from .figures.cliff import cliff_by_model, read_cliff
from .figures.curves import read_curves, readout_aligned
from .figures.deciding import decisions_along_thought, read_along, read_three, three_measures
from .figures.decision import decision_points, read_decision
from .figures.directions import cosine_between_models, drift_over_layers, read_between_models, read_drift
from .figures.dose import dose, read_dose
from .figures.explained import explained_conditions, read_explained
from .figures.heads import heads_that_write, read_heads
from .figures.heldout import probe_held_out, read_held_out
from .figures.histograms import harm_ratings, read_histogram
from .figures.layers import auroc_by_layer_and_span, read_layers
from .figures.lines import auroc_over_layers, read_lines
from .figures.margins import margins_by_layer, read_margins
from .figures.pareto import pareto
from .figures.projection_layers import projection_by_layer, read_by_layer
from .figures.quadrants import corrections_stated, quadrants, read_corrections, read_quadrants
from .figures.restored import read_restoration, read_tradeoff
from .figures.tax import read_tax, tax_by_category
from .figures.trade import read_pareto
from .figures.tradeoff import restoration_bars, tradeoff
from .figures.trajectory import read_trajectory, readout_along_thought
from .figures.transfer import read_transfer, transfer_matrix
from .figures.ways import read_ways, ways_compared
from .headlines import Headline, collapse_headlines, detection_headlines, restoration_headlines


@dataclass(frozen=True)
class Drawing:
    """A figure, the same rows in words, and the tables both take.

    further   what it tells needs another command: without its tables it is left out and its `question` named at the end of the page
    unless    another drawing tells the same from more, where its tables are there
    """

    make: Callable[..., go.Figure]
    read: Callable[..., str]
    tables: tuple[str, ...]
    further: bool = False
    question: str = ""
    unless: Callable[..., go.Figure] | None = None

    @property
    def name(self) -> str:
        return self.make.__name__


@dataclass(frozen=True)
class Section:
    """A question, the drawings that answer it, and headline numbers out of the first table of the first."""

    key: str
    heading: str
    lede: str
    drawings: tuple[Drawing, ...]
    headlines: Callable[[pd.DataFrame], list[Headline]] | None = None


SECTIONS = (
    Section(
        "collapse",
        "Where refusals collapse",
        "The same prompts through every checkpoint. An attack succeeds when the answer, not the thought, is judged unsafe.",
        (
            Drawing(tax_by_category, read_tax, ("collapse",)),
            Drawing(attack_success_by_attack, read_attacks, ("collapse",)),
            Drawing(quadrants, read_quadrants, ("answers", "prompts"), further=True, question="what thoughts and answers say together"),
            Drawing(corrections_stated, read_corrections, ("collapse",), unless=quadrants),
            Drawing(harm_ratings, read_histogram, ("harm_histogram",), further=True, question="how harmful answers are, from 0 to 5"),
            Drawing(excess_by_category, read_blind_spots, ("blind_spots",), further=True, question="whether a category is a blind spot"),
        ),
        collapse_headlines,
    ),
    Section(
        "detection",
        "Where unsafe intent is readable",
        "Linear probes on hidden states, told from two controls: the same probe on shuffled labels, and a bag of words over the same text. "
        "Where the words alone already tell, a probe shows nothing hidden.",
        (
            Drawing(auroc_by_layer_and_span, read_layers, ("detection",)),
            Drawing(auroc_over_layers, read_lines, ("detection",)),
            Drawing(best_layer_by_span, read_detection, ("detection",)),
        ),
        detection_headlines,
    ),
    Section(
        "projection",
        "Where harmful and benign prompts come to lie",
        "Hidden states of all models on the same axes, fitted on train prompts: a prompt of the test split is a point in each layer.",
        (Drawing(projection_by_layer, read_by_layer, ("projection", "answers", "prompts"), further=True),),
    ),
    Section(
        "holdouts",
        "Whether it holds for what was never seen",
        "A category, an attack, pictures or the tuned models left out of fitting and choosing, and tested on exactly those.",
        (Drawing(probe_held_out, read_held_out, ("holdouts",), further=True),),
    ),
    Section(
        "transfer",
        "Whether it transfers",
        "The same probe on models, attacks, categories and moments it was not fitted on.",
        (Drawing(transfer_matrix, read_transfer, ("transfer",), further=True),),
    ),
    Section(
        "geometry",
        "Whether the models share a direction",
        "Cosines between the directions of base, reasoning and safe at each layer, and from one layer to the next, "
        "freed of sampling noise.",
        (
            Drawing(cosine_between_models, read_between_models, ("geometry",), further=True),
            Drawing(drift_over_layers, read_drift, ("geometry",), further=True),
        ),
    ),
    Section(
        "trajectory",
        "Along the thought",
        "One probe read at every step of the thought, averaged over prompts.",
        (Drawing(readout_along_thought, read_trajectory, ("trajectory",)),),
    ),
    Section(
        "curves",
        "At both ends of the thought",
        "Thoughts differ in length: aligned at the end, a fall of the readout before the answer shows.",
        (
            Drawing(readout_aligned, read_curves, ("curves",), further=True),
            Drawing(cliff_by_model, read_cliff, ("cliff",), further=True),
        ),
    ),
    Section(
        "decision",
        "Where the thought turns",
        "Step boundaries ranked by how far safe and reasoning part on the same tokens, and by how far apart the probe reads.",
        (Drawing(decision_points, read_decision, ("decision",), further=True),),
    ),
    Section(
        "decision_ranks",
        "Where the thought is decided",
        "Step boundaries ranked three ways on the same thoughts: how far safe and reasoning part, how far apart a probe reads, and how "
        "much of the divergence one steered token takes back.",
        (Drawing(three_measures, read_three, ("decision_ranks",), further=True),),
    ),
    Section(
        "decision_boundaries",
        "Which boundaries are decisions",
        "Thoughts differ in length and wording: a readout of the model's own hidden state recognises a decision wherever it stands.",
        (Drawing(decisions_along_thought, read_along, ("decision_boundaries",), further=True),),
    ),
    Section(
        "heads",
        "What writes the direction",
        "The residual stream is a sum, so what a probe reads can be divided among the heads that wrote it.",
        (Drawing(heads_that_write, read_heads, ("heads",), further=True),),
    ),
    Section(
        "restoration",
        "What steering restores",
        "The reasoning model with a vector added to its hidden states, against the unsteered model, the safe model "
        "and directions of equal norm that mean nothing.",
        (
            Drawing(tradeoff, read_tradeoff, ("restoration",)),
            Drawing(restoration_bars, read_restoration, ("restoration",)),
            Drawing(pareto, read_pareto, ("sweep", "restoration"), further=True, question="which setting was chosen among which"),
            Drawing(dose, read_dose, ("sweep",), further=True, question="how much strength it takes"),
        ),
        restoration_headlines,
    ),
    Section(
        "comparison",
        "Which way of steering, and is it better than words",
        "Operators, moments, gates and thought modes, each chosen on dev, beside reminders in the thought, system prompts, the safe model, "
        "random directions of equal norm and vectors from shuffled labels.",
        (
            Drawing(ways_compared, read_ways, ("comparison",), further=True),
            Drawing(capability, read_capability, ("comparison",), further=True),
        ),
    ),
    Section(
        "margins",
        "What tuning did along the refusal direction",
        "A bias that shifts moves harmful and benign prompts alike and leaves their order; a direction that is lost brings them together.",
        (Drawing(margins_by_layer, read_margins, ("margins",), further=True),),
    ),
    Section(
        "explained",
        "What undoes the collapse",
        "The mean shift added back, the refusal direction taken out of the weights' update, the thought held or replayed, beside random "
        "directions of equal norm.",
        (Drawing(explained_conditions, read_explained, ("explained",), further=True),),
    ),
)


def drawings() -> dict[str, Drawing]:
    """Every drawing by the name of its function."""
    return {drawing.name: drawing for section in SECTIONS for drawing in section.drawings}
