"""What the processes of loradrop agree on: values, Redis keys, and the catalog itself.

The watcher writes the catalog, workers follow it, the API reads it and publishes refresh requests.
This package imports none of them. `catalog.store` is the only importer of redis; everything else
here is values and pure functions.
"""
