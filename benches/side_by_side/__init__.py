"""Saker beside its peers: same vectors, same queries, same machine, same run, in turns. `make bench` runs it.

What it deliberately does not do: judge. It finds for each engine the fastest setting that reaches a recall, measures in turns,
and writes down what it saw, also of an engine that could not be installed or failed.

Start reading at `__main__`; then `peers` for how each engine is driven, `turns` for the order of things.
"""
