"""People -> catalog: a small HTTP API that asks the watcher to look, and reports who serves what.

It keeps no state of its own: every answer is read from Redis when it is asked for, so any number of
copies can run, and each starts and goes on (answering 503) while Redis is away.
"""
