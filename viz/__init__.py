"""Run tables in, plotly figures out. Reads only `tables/*.parquet` and `provenance.json`; never imports torch."""
