"""What a run leaves behind: its folder, its summary and its reports."""

from .run_folder import RecordedRun, RunFolder, Sitting, config_differences, read_run

__all__ = ["RecordedRun", "RunFolder", "Sitting", "config_differences", "read_run"]
