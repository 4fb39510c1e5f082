"""Drop a LoRA folder under a prefix, and every vLLM worker serves it.

In a checkout this directory holds a link to each package, which stay at the top level; a wheel holds them
here. Always import them from here: `import catalog` would make a second copy of every module.
"""
