"""Mutation tests: small wrong changes to the deciding modules, and which of them the quick tests notice.

`python -m tests.mutants` (`make mutants`). Not mutmut: it names modules by their path (`worker...`, not
`loradrop.worker...`) and neither removes nor swaps statements. Not cosmic-ray: a new Python process, with
every import, for each mutant takes five times as long.

operators    from source to mutants: what is changed, one change each
targets      the deciding modules, and the quick tests of each
job          a process with a copy of the tree, which forks for each mutant
__main__     plans the mutants, hands them to the jobs, prints what survived
"""
