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
_STATE = "tests/watcher/state"
_PLANNED = (f"{_STATE}/test_prefix_state.py", f"{_STATE}/test_prefix_state_removals.py", _STATE)
_KNOWN = (
    f"{_STATE}/test_prefix_state.py",
    f"{_STATE}/test_prefix_state_facts.py",
    f"{_STATE}/test_prefix_state_removals.py",
    f"{_STATE}/test_planning.py",
)
_MONITOR = "tests/watcher/monitor"
_REFRESH = "tests/watcher/refresh"
_LEADING = (
    "tests/watcher/publish/test_catalog_mirror.py",
    "tests/watcher/publish/test_damaged_catalog.py::"
    "test_records_compared_while_changes_are_published_are_not_taken_for_damaged",
    "tests/watcher/publish/test_standing_by.py",
    "tests/watcher/publish/test_leading.py",
)
_LORA = "tests/catalog/lora"
_PICKLES = (
    f"{_LORA}/test_pickle_archive.py",
    f"{_LORA}/test_zip_directory.py",
    f"{_LORA}/test_zip_fields.py",
    f"{_LORA}/test_pickle_limits.py",
    f"{_LORA}/test_differential.py",
)
_CATALOG = "tests/catalog/store"

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
    "worker/fleet/catalog_follower.py": (
        "tests/worker/fleet/test_catalog_follower.py",
        "tests/worker/fleet/test_starting_without_redis.py",
    ),
    "worker/fleet/reporter.py": ("tests/worker/fleet/test_reporter.py",),
    "worker/fleet/state_directory.py": ("tests/worker/fleet/test_state_directory.py",),
    "worker/fleet/ports.py": ("tests/worker/fleet/test_ports.py",),
    "watcher/state/planning.py": _PLANNED,
    "watcher/state/prefix_state.py": _KNOWN,
    "watcher/state/name_state.py": _KNOWN,
    "watcher/state/removal.py": (f"{_STATE}/test_removal.py", *_KNOWN),
    "watcher/state/root.py": (f"{_STATE}/test_root.py", *_KNOWN),
    "watcher/state/settle.py": (f"{_STATE}/test_settle.py", *_KNOWN),
    "watcher/state/records.py": (f"{_STATE}/test_records.py", *_KNOWN),
    "watcher/state/conditions.py": (f"{_STATE}/test_conditions.py",),
    "watcher/publish/catalog_mirror.py": _LEADING,
    "watcher/monitor/evaluation.py": (
        f"{_MONITOR}/test_evaluation.py",
        f"{_MONITOR}/test_evaluation_rest.py",
        _MONITOR,
    ),
    "watcher/monitor/batch.py": (f"{_MONITOR}/test_batch.py", _MONITOR),
    "watcher/monitor/work_queue.py": (f"{_MONITOR}/test_work_queue.py", _MONITOR),
    "watcher/monitor/rehash_schedule.py": (f"{_MONITOR}/test_schedules.py",),
    "watcher/monitor/scan_schedule.py": (f"{_MONITOR}/test_schedules.py",),
    "watcher/monitor/concurrency_limit.py": (f"{_MONITOR}/test_concurrency_limit.py",),
    "watcher/prefix/scan.py": ("tests/watcher/prefix",),
    "watcher/prefix/naming.py": ("tests/watcher/prefix/test_naming.py", "tests/watcher/prefix"),
    "watcher/validation/inspection.py": ("tests/watcher/validation", f"{_MONITOR}/test_batch.py"),
    "watcher/refresh/handler.py": (f"{_REFRESH}/test_handler.py", f"{_REFRESH}/test_answering.py"),
    "watcher/refresh/progress.py": (f"{_REFRESH}/test_progress.py",),
    "catalog/store/publisher.py": (
        f"{_CATALOG}/test_publisher.py",
        f"{_CATALOG}/test_lease.py",
        f"{_CATALOG}/test_damage.py",
        f"{_CATALOG}/test_unavailable.py",
        f"{_CATALOG}/test_bounds.py",
    ),
    "catalog/store/reader.py": (
        f"{_CATALOG}/test_reader.py",
        f"{_CATALOG}/test_following.py",
        f"{_CATALOG}/test_resync.py",
        f"{_CATALOG}/test_unavailable.py",
        f"{_CATALOG}/test_damage.py",
    ),
    "catalog/wire.py": (
        "tests/catalog/test_wire.py",
        "tests/catalog/test_published_records.py",
        f"{_CATALOG}/test_reader.py",
    ),
    "catalog/bounds.py": (f"{_CATALOG}/test_bounds.py",),
    "catalog/lora/config.py": (
        f"{_LORA}/test_config.py",
        f"{_LORA}/test_config_limits.py",
        "tests/watcher/validation",
    ),
    "catalog/lora/tensors.py": (f"{_LORA}/test_tensors.py", "tests/watcher/validation", *_ADMISSION),
    "catalog/lora/safetensors_header.py": (
        f"{_LORA}/test_safetensors_header.py",
        f"{_LORA}/test_header_limits.py",
        f"{_LORA}/test_differential.py",
    ),
    "catalog/lora/open_files.py": (f"{_LORA}/test_open_files.py", "tests/watcher/validation"),
    "catalog/lora/zip_directory.py": _PICKLES,
    "catalog/lora/pickle_archive.py": _PICKLES,
    "catalog/lora/pickle_opcodes.py": _PICKLES,
}
