"""The deciding modules, and the quick tests of each: those that name it first, so that they fail first."""

_SERVING = "tests/worker/serving"
_PLACES = "tests/worker/places"
_STORE = "tests/worker/store"
_ADMISSION = (
    "tests/worker/admission/test_admission.py",
    "tests/worker/admission/test_admission_refusals.py",
    "tests/worker/admission/test_admission_properties.py",
)
_RECONCILER = (
    f"{_SERVING}/test_reconciler_requests.py",
    f"{_SERVING}/test_reconciler_updates.py",
    f"{_SERVING}/test_reconciler_removals.py",
    _SERVING,
)
_STORED = (f"{_STORE}/test_revisions.py", f"{_STORE}/test_eviction.py", _STORE)

_PLACED = (f"{_PLACES}/test_residency.py", f"{_PLACES}/test_residency_room.py", _SERVING)

TARGETS: dict[str, tuple[str, ...]] = {
    "worker/serving/entry.py": (f"{_SERVING}/test_entry.py", _SERVING),
    "worker/serving/entries.py": _RECONCILER,
    "worker/places/load_scheduler.py": (f"{_PLACES}/test_load_scheduler.py", _SERVING),
    "worker/serving/loading.py": _RECONCILER,
    "worker/serving/manual_loads.py": (f"{_SERVING}/test_manual_loads.py", _SERVING),
    "worker/serving/reconciler.py": _RECONCILER,
    "worker/places/residency.py": _PLACED,
    "worker/places/places.py": _PLACED,
    "worker/places/draining.py": _PLACED,
    "worker/places/room.py": _PLACED,
    "worker/engine/finds.py": ("tests/worker/engine/test_finds.py",),
    "worker/serving/resolver.py": (*_RECONCILER,),
    "worker/serving/status.py": (f"{_SERVING}/test_status.py", _SERVING),
    "worker/admission/checks.py": _ADMISSION,
    "worker/admission/base_fit.py": _ADMISSION,
    "worker/store/revision_store.py": _STORED,
    "worker/store/pins.py": (f"{_STORE}/test_pins.py", _STORE),
    "worker/store/staging.py": _STORED,
    "worker/store/rate_limit.py": (f"{_STORE}/test_rate_limit.py", _STORE),
    "worker/store/deadline.py": (f"{_STORE}/test_deadline_threads.py", _STORE),
    "worker/store/deadline_threads.py": (f"{_STORE}/test_deadline_threads.py", _STORE),
    "worker/store/warm_start.py": (f"{_STORE}/test_warm_start.py",),
    "worker/fleet/catalog_follower.py": ("tests/worker/fleet/test_catalog_follower.py",),
    "worker/fleet/reporter.py": ("tests/worker/fleet/test_reporter.py",),
    "worker/fleet/state_directory.py": ("tests/worker/fleet/test_state_directory.py",),
    "worker/fleet/ports.py": ("tests/worker/fleet/test_ports.py",),
}
