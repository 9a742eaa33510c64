"""Other engines on the same weights, for those whose code is written for them; each gives the rows and the numbers of capture().

    transformer_lens.py    bridge(lens), hook_name(lens, site), site_of(lens, name), read(lens, transcripts, where)
    nnsight.py             wrap(lens), envoy(lens, model, site), read(lens, transcripts, where)

Nothing is imported here: TransformerLens quietens the log of transformers and nnsight adds `.save` to every Python object when they are.
"""
