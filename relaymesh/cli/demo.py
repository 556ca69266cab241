"""``demo``: a real workflow over real files, run by a node that lives as long as the command."""

from __future__ import annotations

import io
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from relaymesh.cli.call import Call, at_terminal, pass_call
from relaymesh.cli.option import command
from relaymesh.cli.paste import command_line, nearest_path
from relaymesh.core.plural import counted
from relaymesh.view import View

if TYPE_CHECKING:
    from types import FrameType, TracebackType

    from relaymesh.cli.demo_progress import LinesProgress, SilentProgress, Steps, TableProgress
    from relaymesh.client import Client
    from relaymesh.demo.source import Sources
    from relaymesh.node import RunningNode
    from relaymesh.view import Event

__all__ = ["demo"]

AGENTS = "relaymesh.demo.agents"
REPORT = "report"
FOLDER = "relaymesh-demo"
INTERRUPTED = 130
# Far above what the largest input that is taken needs.
_WITHIN_MS = 300_000


class DemoOutcome(View, frozen=True, kw_only=True):
    """What ``--output json`` prints. Paths are absolute."""

    task_id: str
    status: str
    report: str | None
    root: str
    steps: int
    retried: int
    duration_ms: int


class Summary(View, frozen=True, kw_only=True):
    """What the agent ``report`` puts out."""

    report: str
    texts: int
    words: int
    longest: str
    longest_words: int


@command("demo", example="relaymesh demo --input docs")
@click.option(
    "--input",
    "folder",
    metavar="DIR",
    help="Folder with texts in UTF-8, at most 100 files of 1 MiB, 16 MiB together.  [default: texts that come along]",
)
@click.option("--root", "own_root", metavar="DIR", help="Data root.  [default: the folder data in that of --out]")
@click.option("--out", metavar="DIR", help=f"Where the report is written.  [default: {FOLDER}, in the current folder]")
@click.pass_context
@pass_call
def demo(call: Call, ctx: click.Context, folder: str | None, own_root: str | None, out: str | None) -> int:
    """A node is started, counts the words of each text in a step of its own (in Python and in another language, one
    step fails once and is retried), draws a chart, writes a report, and is stopped. What was done stays on disk, so
    every other command can look at it; another run adds another task. Ctrl-C stops it early, and nothing is lost.
    """
    from relaymesh.demo import source

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a file name may hold what the terminal cannot show
    sources = source.read_sources(Path(folder) if folder is not None else source.TEXTS)
    out_folder = _out_folder(out)
    given = ctx.find_root().get_parameter_source("root") is ParameterSource.COMMANDLINE
    root = os.path.abspath(own_root) if own_root is not None else call.root if given else str(out_folder / "data")
    return _Demo(Call(root, call.namespace, call.output, call.doors), out_folder, sources).run()


def _out_folder(out: str | None) -> Path:
    """Return the folder of the report, made if need be: in the current folder, or where that cannot be written."""
    if out is not None:
        folder = Path(out).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    folder = Path(FOLDER).absolute()
    try:
        folder.mkdir(exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    import tempfile

    return Path(tempfile.mkdtemp(prefix=f"{FOLDER}-"))


class _Demo:
    """One run of the demo."""

    def __init__(self, call: Call, out: Path, sources: Sources) -> None:
        self._call = call
        self._out = out
        self._sources = sources
        self._began = time.monotonic()
        self._json = call.output == "json"

    def run(self) -> int:
        from relaymesh.cli.demo_progress import Steps
        from relaymesh.demo.flow import build
        from relaymesh.demo.tool import find_tools, install
        from relaymesh.node import NodeOptions

        tools = find_tools()
        flow, agents = build(self._sources.texts, tools, self._out)
        workers = max(2, min(4, os.cpu_count() or 2))
        options = NodeOptions(
            root=Path(self._call.root), namespace=self._call.namespace, concurrency=workers, agents=(AGENTS,)
        )
        with self._call.client((AGENTS,)) as client, _Interrupts() as interrupts:
            install(tools, client.init())
            self._introduce([tool.name for tool in tools if tool.agent_id in agents.values()], workers)
            node = self._call.doors.start(options)
            interrupts.node = node
            try:
                # Not the derived key: each run of the demo is a task of its own.
                task_id = client.submit_workflow(flow, idempotency_key=f"demo-{secrets.token_hex(8)}").task_id
                steps = Steps.of(task_id, agents)
                interrupts.until_asked(lambda: self._watch(client, task_id, steps))
                if interrupts.asked:
                    self._say("Stopping: what runs may end, nothing new is started; Ctrl-C again stops at once.")
            finally:
                _stop(node)
            return self._conclude(client, task_id, steps, interrupted=interrupts.asked)

    def _introduce(self, tools: list[str], workers: int) -> None:
        count = len(self._sources.texts)
        texts = counted(count, "text")
        *firsts, last = ["Python", *tools]
        languages = f"{', '.join(firsts)} and {last}" if firsts else last
        self._say(f"RelayMesh demo: {texts}, a step each in {languages}, then a report.")
        left_out = self._sources.left_out
        if left_out:
            more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
            self._say(f"Left out, because it is not UTF-8 text: {', '.join(map(_shown, left_out[:3]))}{more}.")
        processes = counted(workers, "worker process", "worker processes")
        self._say(f"Starting a node with {processes} on {nearest_path(self._call.root)} ...")

    def _watch(self, client: Client, task_id: str, steps: Steps) -> None:
        from relaymesh.cli import demo_progress
        from relaymesh.watch import WaitTimeoutError

        animated = at_terminal(sys.stdout) and os.environ.get("TERM") != "dumb"
        progress: TableProgress | LinesProgress | SilentProgress
        if self._json:
            progress = demo_progress.SilentProgress()
        else:
            progress = demo_progress.TableProgress(steps) if animated else demo_progress.LinesProgress(steps)
        with progress:
            try:
                for event in client.events(task_id, timeout_ms=_WITHIN_MS):
                    row = steps.take(event, _started_at_ms(client, event))
                    if row is not None:
                        progress.changed(row)
            except WaitTimeoutError:
                for reason in client.explain(task_id)[:3]:
                    self._say(f"{reason.step_id}: {reason.detail}")
                raise

    def _conclude(self, client: Client, task_id: str, steps: Steps, *, interrupted: bool) -> int:
        task = client.task(task_id)
        succeeded = task.status == "SUCCESS"
        summary = client.result(task_id, REPORT, type=Summary) if succeeded else None
        retried = [row.name for row in steps.rows.values() if row.attempt > 1]
        if self._json:
            self._call.show(
                DemoOutcome(
                    task_id=task_id,
                    status=task.status,
                    report=summary.report if summary else None,
                    root=self._call.root,
                    steps=len(steps.rows),
                    retried=len(retried),
                    duration_ms=round((time.monotonic() - self._began) * 1000),
                )
            )
        elif summary is not None:
            self._say("")
            self._say(
                f"{summary.words:,} words in {counted(summary.texts, 'text')};"
                f" the longest is {_shown(summary.longest)} with {summary.longest_words:,}."
            )
            if retried:
                self._say(f"The step {', '.join(retried)} failed once, on purpose, and was run again.")
            self._say(f"The report: {summary.report}")
            self._suggest(
                ("Try next. The steps, as they are stored:", ["workflow", task_id]),
                ("What each attempt logged, the failed one too:", ["logs", task_id]),
                ("How many tasks a second this machine runs:", ["benchmark-run"]),
            )
        elif interrupted:
            done = sum(step.status == "SUCCESS" for step in client.workflow(task_id).steps)
            self._say(f"Stopped with {done} of {len(steps.rows)} steps done; they are stored, and the rest waits.")
            self._suggest(
                ("Run the rest (the report is its last step; Ctrl-C ends the node):", ["up", "--agents", AGENTS]),
                ("See how far it is:", ["workflow", task_id]),
                ("Or give it up:", ["cancel", task_id]),
            )
        else:
            self._say(f"The workflow ended as {task.status}: {_shown(task.last_error or 'no reason was stored')}")
            self._suggest(
                ("What each attempt logged:", ["logs", task_id]),
                ("Run what failed again:", ["replay", task_id]),
            )
        return 0 if succeeded else INTERRUPTED if interrupted else 1

    def _suggest(self, *commands: tuple[str, list[str]]) -> None:
        self._say("")
        for why, words in commands:
            self._say(why)
            # Not through rich: a command that was wrapped could not be pasted.
            self._say(f"  {command_line(self._call.root, self._call.namespace, words)}")

    def _say(self, text: str) -> None:
        if not self._json:
            click.echo(text)


def _shown(text: str) -> str:
    """Return text from outside as a terminal may see it."""
    from relaymesh.cli.table import printable

    return printable(text)


def _started_at_ms(client: Client, event: Event) -> int | None:
    if event.step_id is None or event.status == "PENDING":
        return None
    rows = client.query("SELECT started_at_ms FROM steps WHERE step_id=?", (event.step_id,))
    return rows[0][0] if rows else None


def _stop(node: RunningNode) -> None:
    node.drain()
    while node.wait(0.2) is None:  # in slices: on Windows a signal does not interrupt a wait
        continue


class _Interrupts:
    """A context manager that turns signals into an orderly end.

    The first ends the work of ``until_asked``, even if it comes before that; the second kills the node.
    """

    def __init__(self) -> None:
        self.asked = False
        self.node: RunningNode | None = None
        self._at_work = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if sys.platform == "win32":
            numbers.append(signal.SIGBREAK)
        if threading.current_thread() is threading.main_thread():
            self._former = {number: signal.signal(number, self._on_signal) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    def until_asked(self, work: Callable[[], None]) -> None:
        """Do the work, and leave it where it is when a signal asks for it, also before it has begun."""
        try:
            self._at_work = True
            if not self.asked:
                work()
        except KeyboardInterrupt:
            self.asked = True
        finally:
            self._at_work = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.asked and self.node is not None:
            # A handler interrupts this thread anywhere, so it must not wait for a lock that this thread may hold.
            threading.Thread(target=self.node.kill, daemon=True).start()
        self.asked = True
        if self._at_work:
            raise KeyboardInterrupt
