"""From a prefix on disk to the catalog: what is completely there, and nothing else.

discovery    the two functions for other programs: scan once, without waiting
prefix       what is under a prefix: names, signatures, findings, the scan
validation   is a directory a complete, valid adapter?
state        what is known of each name, and the plan of what to write             pure
notify       hints that something may have changed, and the proof that they still flow
publish      the mirror of the catalog, and the lease
monitor      what to examine, when, and with how many threads
refresh      manual refreshes: taken in, followed, answered
watcher      one task owns the state; the others set its wakeup
"""
