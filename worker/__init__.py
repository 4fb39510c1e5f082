"""Catalog -> vLLM: what runs inside vLLM's API server processes.

server/      vLLM's plugins: our flags on its command line, our routes on its port, start and stop
worker       the parts below, wired together and kept running
fleet/       follow the catalog, report to it; the all-in-one default with Valkey, watcher and API as children
serving/     desired against loaded: which revision answers for which name, retries, draining
places/       the engine's places: what is loaded, how room is made, when loads run
engine/      the only folder that touches vLLM's internals
admission/   whether an adapter works on this base model and this server
store/       the private, immutable store of revisions
"""
