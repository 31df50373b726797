"""The server of the page: on this machine alone by default, without a request to any other."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pag_inverse.app.uploads import Limits
from pag_inverse.runtime.devices import check_device
from pag_inverse.settings import settings

# The browser refuses every address but the page's own, whatever a library's page may ask for.
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'"


@settings
class AppRequest:
    """How the page is served.

    host: an address of this machine; 127.0.0.1 is seen from here alone. port: 0 takes a free one. max_side: the most
    pixels a side of a measurement or a whole picture. max_upload: the most megabytes of a file. device: of the priors.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 7860
    max_side: Annotated[int, Field(ge=16, le=2**14)] = 1024
    max_upload: Annotated[float, Field(gt=0, le=1000)] = 20.0
    device: str = "cpu"


class OwnAddressesOnly:
    """An ASGI layer that sends POLICY with every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass everything on."""

        async def add_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", POLICY.encode())
                message = {**message, "headers": [*message.get("headers", []), policy]}
            await send(message)

        await self.app(scope, receive, add_policy)


def serve(request: AppRequest) -> int:
    """Serve the page until Ctrl-C; ValueError where gradio is missing or the address is taken."""
    with tempfile.TemporaryDirectory(prefix="pag_inverse_app_") as folder:
        blocks = launch(request, Path(folder))
        print(f"the page is at {blocks.local_url} (Ctrl-C ends it)", flush=True)
        try:
            blocks.block_thread()
        finally:
            blocks.close()
    return 0


def launch(request: AppRequest, folder: Path) -> Any:
    """Start the server in threads of its own; `folder` holds all files of visitors."""
    # Read by gradio when it is imported: no statistics, no check of versions, no files outside the folder.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "0"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["GRADIO_TEMP_DIR"] = str(folder / "uploads")
    try:
        import gradio
    except ImportError:
        raise ValueError('gradio is not installed; pip install "pag-inverse[app]" (or -e ".[app]")') from None
    from starlette.middleware import Middleware

    from pag_inverse.app import page
    from pag_inverse.app.events import QUEUE, build

    check_device(request.device)
    blocks = build(Limits(request.max_side, request.max_upload), request.device, folder)
    try:
        blocks.launch(
            server_name=request.host,
            server_port=request.port or free_port(request.host),
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_threads=2 * QUEUE,  # each visitor who waits holds one
            max_file_size=f"{request.max_upload:g}mb",
            allowed_paths=[str(folder)],
            footer_links=[],
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            theme=page.theme(),
            css=page.CSS,
            app_kwargs={"middleware": [Middleware(OwnAddressesOnly)], "docs_url": None, "redoc_url": None},
        )
    except OSError as error:
        raise ValueError(
            f"port {request.port} of {request.host} cannot be used ({error}); give another --port"
        ) from None
    assert isinstance(blocks, gradio.Blocks)
    return blocks


def free_port(host: str) -> int:
    """A port that nothing listens on."""
    import socket

    with socket.socket() as s:
        s.bind((host, 0))
        port: int = s.getsockname()[1]
    return port
