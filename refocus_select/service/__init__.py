"""Videos behind a server or a page: what may be read, what is kept, how much at once. See `VideoService`."""

from .access import Access
from .service import Description, Limits, VideoService
from .tasks import CancelledError, Task

__all__ = ["Access", "CancelledError", "Description", "Limits", "Task", "VideoService"]
