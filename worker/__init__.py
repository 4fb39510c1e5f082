"""Catalog -> vLLM: what runs inside vLLM's API server processes.

flags        our flags on vLLM's command line (a vllm.general_plugins entry)
plugin       the vllm.endpoint_plugins entry: routes, start, stop
worker       puts the parts below together and keeps them running
consumer     list, then follow the catalog
reconciler   desired against loaded: who is served by what, retries, quarantine
preparation  from a directory under the prefix to proven, private, admitted bytes
engine       the only place that touches vLLM's internals
embedded     the all-in-one default: Valkey, watcher and API as supervised children
"""
