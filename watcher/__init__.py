"""From a prefix on disk to the catalog: what is completely there, and nothing else.

discovery    the scan, and the two functions for other programs
look         one adapter's files as `stat` sees them
inspection   is it complete and valid? (`peft_config`, `lora_tensors`, `safetensors_proof`, `pickle_check`)
settle       has it stopped changing?                                                pure
examination  look, inspect, settle, digest: one finding an adapter, in a thread
removal      is it really gone?                                                      pure
diff         findings against the catalog's records                                  pure
notifier     hints that something may have changed (`inotify`, `portable`)
watcher      one task owns the state; the others ring its bell
"""
