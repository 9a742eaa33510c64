"""One file per idea: a pure function table -> figure, and beside it the sentence that reads the same rows aloud."""
