"""`recon serve`: health, trading state, metrics and the order status page over HTTP. Reads only."""

import logging

import click


@click.command()
@click.option("--host", help="Address to bind to.  [RECON_SERVE_HOST, else 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 for a free one.  [RECON_SERVE_PORT, else 8080]")
def serve(host: str | None, port: int | None) -> None:
    """Answer /internal/health, /internal/trading/status, /metrics and the order status page at /.

    Everything is read every few seconds by one connection that can't write; no request reaches the database. Without
    RECON_SERVE_TOKEN only this machine may ask, and an address that others reach is refused.

    \b
    Examples:
      recon serve
      RECON_SERVE_TOKEN=... recon serve --host 0.0.0.0 --port 8080
      curl -s http://127.0.0.1:8080/internal/health
    """  # noqa: D301
    from recon_pipeline.ops.access import Access, AccessError, check_binding
    from recon_pipeline.ops.sockets import ServeError, address_of, bound_socket
    from recon_pipeline.settings import SettingError, read_settings

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # what strangers send is not worth a line each
    try:
        settings = read_settings()
        if not settings.database_url:
            raise click.ClickException("RECON_DATABASE_URL is not set.")
        wanted = settings.serve
        address = wanted.host if host is None else host
        check_binding(address, wanted.token)
        listening = bound_socket(address, wanted.port if port is None else port)
    except (SettingError, AccessError, ServeError) as error:
        raise click.ClickException(str(error)) from None

    from recon_pipeline.ops.app import build_app
    from recon_pipeline.ops.keeper import Keeper
    from recon_pipeline.ops.reading import SnapshotReader
    from recon_pipeline.ops.serving import run_server
    from recon_pipeline.ops.views import standard_views

    reader = SnapshotReader(
        settings.database_url, timeout_seconds=wanted.max_age_seconds / 2, stale_ms=settings.order_status.stale_ms
    )
    keeper = Keeper(reader, refresh_seconds=wanted.refresh_seconds)
    app = build_app(
        keeper.latest,
        views=standard_views(settings),
        access=Access(token=wanted.token, hosts=frozenset(name.lower() for name in wanted.hosts)),
    )
    asked = "with the token" if wanted.token else "this machine only"
    said = f"recon serve answers at {address_of(listening)} ({asked})"
    if not run_server(app, listening, keeper, when_ready=lambda: click.echo(said)):
        raise click.ClickException("The thread that reads the database ended; see the log.")
