"""Clients -> catalog: a small HTTP API that takes refreshes, and reports which worker serves what.

It keeps no state of its own: every answer is read from Redis when it is asked for, so any number of
copies can run, and each starts and goes on (answering 503) while Redis is away.
"""
