"""What a run leaves behind: its folder, its summary and its reports."""

from .database import Sitting
from .provenance import collect_provenance
from .reports import write_reports
from .run_folder import RecordedRun, RunFolder, read_run
from .summary import summarize

__all__ = ["RecordedRun", "RunFolder", "Sitting", "collect_provenance", "read_run", "summarize", "write_reports"]
