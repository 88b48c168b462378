"""Jobs that take longer than a call: started by one, worked on in steps, watched and cancelled."""

from accord_runtime.jobs.jobs import Job, Jobs, Kind, Progress
from accord_runtime.jobs.operations import MIGRATIONS

__all__ = ["CONTRACT", "MIGRATIONS", "Job", "Jobs", "Kind", "Progress"]

CONTRACT = "accord.ops.v1.OperationService"
"""What every service serves."""
