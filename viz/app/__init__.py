"""`thoughtlens view`: one or several runs in a browser. Needs the extra `app` (dash, duckdb)."""

from .making import make_app as make_app
from .runs import Runs as Runs
from .serving import serve as serve
