"""The one reader of an adapter's bytes: configuration, tensors, weights files, opening them.

The watcher uses it on the prefix, a worker on its copies; each fault has one reason code.
"""
