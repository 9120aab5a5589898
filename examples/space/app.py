"""The page as a Space of the Hugging Face Hub: visitors upload their own videos."""

from refocus_select.service import Access, Limits, VideoService
from refocus_select.ui.page import LAUNCH, build_page

limits = Limits(max_duration=3600.0, max_frames=32, timeout=300.0)
service = VideoService(Access(max_bytes=2 * 10**9), limits=limits)
page = build_page(service)

if __name__ == "__main__":
    page.queue(default_concurrency_limit=4).launch(max_file_size=service.access.max_bytes, **LAUNCH)
