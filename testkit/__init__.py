"""What tests and benchmarks share: real servers, adapters on disk, the tiny model, fakes, and waiting."""
