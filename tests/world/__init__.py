"""The simulated outside: Telnyx, Slack and the calls of a day, for tests, demo and benchmarks.

It imports nothing of the product, so it cannot share the product's mistakes: what must be alerted
follows from what the generator put into a call.
"""
