"""What the command line offers, a file a theme; each function is a command and its docstring its --help. cli.py puts them together."""
