"""What is usual and what departs from it: the statistical core. Pure: no clock, no Redis, no HTTP.

Calls are sorted into cohorts, measured, compared with what their cohort has cost before, and
learned from. What no single call shows (a surge, a drop, a budget that runs out) is found in series
of counts and money.
"""
