"""The commands of somebody on call: metrics, service levels, alerts, and the cluster epoch."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from relaymesh.cli.call import Call, pass_call
from relaymesh.cli.option import WholeNumber, command

if TYPE_CHECKING:
    from types import FrameType

    from relaymesh.metric.serve import MetricsServer
    from relaymesh.node_view import HealthOutcome

__all__ = ["alerts", "cluster_epoch_bump", "cluster_state", "metrics", "serve_metrics", "slo_evaluate"]

EXIT_ALERT = 2


@command("metrics", example="relaymesh metrics")
@pass_call
def metrics(call: Call) -> None:
    """Those of running nodes come from what each of them wrote down within the last seconds."""
    with call.client() as client:
        click.echo(client.metrics().encode(), nl=False)


@command("serve-metrics", example="relaymesh --root data serve-metrics --port 9464")
@click.option("--port", type=WholeNumber(min=0, max=65_535), default=9464, help="TCP port; 0 takes a free one.")
@click.option("--path", default="/metrics", help="Where the page is; anything else is 404.")
@click.option("--bind", default="127.0.0.1", metavar="HOST", help="Address to listen at; by default this machine only.")
@click.option("--auth-file", metavar="FILE", help="Who may read, as JSON; without it everybody who gets there.")
@click.option("--allow-anonymous", is_flag=True, help="Other machines may read without a token.")
@pass_call
def serve_metrics(call: Call, port: int, path: str, bind: str, auth_file: str | None, allow_anonymous: bool) -> int:
    """It prints its address and runs until it is stopped, whether nodes run or not. /live and /ready are for probes and
    need no token, /health says as much as `relaymesh health`.
    """
    import time

    from relaymesh.auth.file import AuthFile
    from relaymesh.auth.guard import Guard, is_loopback
    from relaymesh.metric.serve import MetricsServer

    if not path.startswith("/"):
        raise click.BadParameter(f"{path!r} does not begin with a slash", param_hint="'--path'")
    if path in ("/live", "/ready", "/health"):
        raise click.BadParameter(f"{path} is answered as a probe: choose another", param_hint="'--path'")
    if not all(sign.isascii() and (sign.isalnum() or sign in "/-._~") for sign in path):
        raise click.BadParameter(
            f"{path!r} is no plain path: write letters, digits and any of / - . _ ~", param_hint="'--path'"
        )
    if auth_file is None and not allow_anonymous and not is_loopback(bind):
        raise click.BadParameter(
            f"{bind or 'every address'} can be reached from other machines: say who may read with --auth-file FILE,"
            " or that everybody may with --allow-anonymous",
            param_hint="'--bind'",
        )

    def look() -> HealthOutcome:
        with call.client() as fresh:  # that of the page keeps settings that were good once
            return fresh.health()

    with call.client() as client:
        # Once here, so that what is wrong with the root is an error of this call, and one record says who looked.
        client.metrics()
        guard = None
        if auth_file is not None:
            knows = AuthFile(Path(os.path.abspath(auth_file)), client.root, client.audit)
            guard = Guard(knows, client.audit, namespace=client.namespace, now_ms=lambda: time.time_ns() // 1_000_000)
        server = MetricsServer(client.render_metrics, host=bind, port=port, path=path, health=look, guard=guard)
        click.echo(f"metrics are at {server.address}; Ctrl-C stops it")
        _until_signal(server)
    return 0


def _until_signal(server: MetricsServer) -> None:
    over = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        over.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    if sys.platform == "win32":
        signal.signal(signal.SIGBREAK, on_signal)
    answering = threading.Thread(target=server.serve, name="metrics", daemon=True)
    answering.start()
    while not over.wait(1.0):  # in slices: on Windows a signal does not interrupt a wait
        continue
    server.stop()
    answering.join()


@command("slo-evaluate", example="relaymesh slo-evaluate || page-somebody")
@click.option("--out", metavar="FILE", help="File to write.  [default: alerts/slo-alerts-latest.json in the root]")
@pass_call
def slo_evaluate(call: Call, out: str | None) -> int:
    """The targets are the settings slo*. The exit status is 2 when one is missed."""
    with call.client() as client:
        outcome = client.slo_evaluate(None if out is None else os.path.abspath(out))
    call.show(outcome)
    return EXIT_ALERT if outcome.total_fired else 0


@command("alerts", example="relaymesh alerts")
@click.option("--limit", type=WholeNumber(min=0), default=20, help="At most this many of the last changes.")
@pass_call
def alerts(call: Call, limit: int) -> None:
    """Running nodes look every 5 s; an alert fires when a reading was too high for a while, and is over when it was low
    for a while.
    """
    with call.client() as client:
        call.show(client.alerts(limit))


@command("cluster-state", example="relaymesh cluster-state")
@pass_call
def cluster_state(call: Call) -> None:
    with call.client() as client:
        call.show(client.cluster_state())


@command("cluster-epoch-bump", example="relaymesh cluster-epoch-bump --reason 'suspected split'")
@click.option("--reason", default="manual", help="Kept in the audit log.")
@click.option("--actor", default="cli", help="Who does it, for the audit log.")
@pass_call
def cluster_epoch_bump(call: Call, reason: str, actor: str) -> None:
    """Every result that is on its way is refused once; its step runs again when its lease has run out."""
    with call.client() as client:
        call.show(client.cluster_epoch_bump(reason=reason, actor=actor))
