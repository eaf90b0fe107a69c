"""A labelled month: very different customers' calls, with anomalies whose truth is kept apart.

`customers` says who calls how much and when, `table` how many anomalies of what size are injected
and under which seeds, `month` puts both together, and `files` writes what a detector may read and,
beside it, what it must not: the labels.
"""
