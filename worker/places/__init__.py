"""The engine's places: what is loaded, what answers for which name, how room is made, when loads run."""
