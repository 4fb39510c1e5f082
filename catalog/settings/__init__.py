"""Every setting of every process, declared once: flag, variable, kind of value, default and help.

kinds          from text to a value, or a sentence that says what can be used
setting        what a declaration holds, and how flags and variables are read by it
declared       the declarations

Flags win over variables, variables over defaults. vLLM's own parser takes the flags of `serve` from here, and
the README and docs/settings.md are generated from here (`make docs`).
"""

from loradrop.catalog.settings.setting import (
    Process,
    Setting,
    SettingsInvalid,
    Values,
    add_flags,
    parse_command_line,
    read_values,
)

__all__ = [
    "Process",
    "Setting",
    "SettingsInvalid",
    "Values",
    "add_flags",
    "parse_command_line",
    "read_values",
]
