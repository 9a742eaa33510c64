"""Run tables in, plotly figures out. Reads only `tables/*.parquet` and `provenance.json`; never imports torch."""

from .figures.best_layer import best_layer_by_span as best_layer_by_span
from .figures.curves import readout_aligned as readout_aligned
from .figures.deciding import decisions_along_thought as decisions_along_thought
from .figures.deciding import three_measures as three_measures
from .figures.decision import decision_points as decision_points
from .figures.explained import explained_conditions as explained_conditions
from .figures.heads import heads_that_write as heads_that_write
from .figures.heldout import probe_held_out as probe_held_out
from .figures.layers import auroc_by_layer_and_span as auroc_by_layer_and_span
from .figures.margins import margins_by_layer as margins_by_layer
from .figures.tax import attack_success_by_attack as attack_success_by_attack
from .figures.tax import tax_by_category as tax_by_category
from .figures.tradeoff import restoration_bars as restoration_bars
from .figures.tradeoff import tradeoff as tradeoff
from .figures.trajectory import readout_along_thought as readout_along_thought
from .figures.transfer import transfer_matrix as transfer_matrix
from .figures.ways import ways_compared as ways_compared
from .report import report as report
from .tables import TableProblem as TableProblem
from .tables import read_table as read_table
from .theme import dress as dress
