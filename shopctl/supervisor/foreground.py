"""The supervisor as `shopctl up` shows it: terminal, log files, signals and `run.json`."""

import asyncio
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.topology import BROKER
from shopctl.errors import ExitCode
from shopctl.supervisor import broker, hints, state, status
from shopctl.supervisor.health import State
from shopctl.supervisor.logs import Format, Human, LogFile, json_lines, raw
from shopctl.supervisor.programs import Selection
from shopctl.supervisor.restarts import Event, Notice, Supervisor
from shopctl.terminal import TerminalWriter, is_terminal, wants_colour, width

if TYPE_CHECKING:
    from shopctl.certs.authority import Authority

LOGS: Final = "logs"
READY_SECONDS: Final = 60.0
"""After so long the table is shown whether everything serves or not."""


class Foreground:
    """One run of the shop. Make it and `run` it in the main thread, holding the lock of `home`.

    `home` is an absolute path, and exists. `quiet`: do not follow the logs; `as_json`: print one
    JSON object per line instead of text; `authority`: of their certificates, None: without TLS.
    """

    def __init__(
        self,
        home: Path,
        offset: int,
        selection: Selection,
        *,
        quiet: bool,
        as_json: bool,
        authority: "Authority | None" = None,
    ) -> None:
        self._home = home
        self._offset = offset
        self._selection = selection
        self._quiet = quiet
        self._as_json = as_json
        self._authority = authority
        self._started = time.time()
        self._terminal = TerminalWriter(sys.stdout.fileno())
        self._format = self._choose_format()
        self._following = False
        self._interrupted = False
        self._killed = False
        self._save_again: asyncio.TimerHandle | None = None
        (home / LOGS).mkdir(exist_ok=True)
        self._files = {p.name: LogFile(home / LOGS / f"{p.name}.log") for p in selection.programs}

    async def run(self) -> ExitCode:
        """Starts everything and returns when it has all ended."""
        self._supervisor = Supervisor(
            self._selection.programs,
            on_lines=self._write_log,
            on_notice=self._notice,
            on_change=self._save,
        )
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._supervisor.stop)
        names = [program.name for program in self._selection.programs]
        self._say("starting", f"starting {', '.join(names)}", programs=names)
        if self._authority is None:
            text = "WITHOUT TLS: whoever is on this host may call everything"
            self._say("insecure", f"{text} (MESH_INSECURE=1)")
        keeper = asyncio.create_task(self._keep_certificates())
        welcome = asyncio.create_task(self._welcome())
        try:
            await self._supervisor.run()
        finally:
            welcome.cancel()
            keeper.cancel()
            state.remove_run(self._home)
            self._close_files()
            self._say("stopped", "stopped")
            self._terminal.close()
        return ExitCode.INTERRUPTED if self._killed else ExitCode.OK

    async def _welcome(self) -> None:
        ready = await self._supervisor.serving(READY_SECONDS)
        if self._supervisor.stopping:
            return
        rows = await status.survey(self._run(), self._home)
        if not self._as_json:
            picture = status.table(rows, colour=wants_colour(), width=width())
            self._terminal.print(f"\n{picture}\n")
        seconds = time.time() - self._started
        event, text = "ready", f"ready in {seconds:.1f} s"
        if not ready:
            event, text = "not ready", f"not everything serves after {seconds:.0f} s"
        self._say(event, text, offset=self._offset, processes=status.rows_as_json(rows))
        if not self._as_json:
            if ready:
                left_out = tuple(self._selection.left_out)
                secure = self._authority is not None
                said = hints.text(self._home, self._offset, left_out, secure=secure)
                self._terminal.print(f"\n{said}\n")
            else:
                self._print_tails()
        self._following = not self._quiet

    async def _keep_certificates(self) -> None:
        if self._authority is not None:
            from shopctl.certs.keeper import keep  # cryptography takes long to import

            say = partial(self._say, "certificates")
            await keep(self._authority, say, self._tell_broker)

    def _tell_broker(self) -> None:
        """Has the broker read the certificates again, and whom it knows."""
        for child in self._supervisor.children:
            if child.program.name == BROKER and self._authority is not None:
                broker.write_config(self._home, self._offset, self._authority.usable())
                child.reload()

    def _close_files(self) -> None:
        for name, file in self._files.items():
            file.close()
            if file.lost:
                text = f"{file.lost} bytes of {name}'s log could not be written"
                self._say("log lost", text, program=name, bytes=file.lost)

    def _print_tails(self) -> None:
        for child in self._supervisor.children:
            if child.state is not State.SERVING:
                self._terminal.print(f"{child.program.name} does not serve; what it said last:")
                self._print_lines(child.program.name, list(child.tail))

    def _interrupt(self) -> None:
        if self._interrupted:
            self._killed = True
            self._supervisor.kill()
        self._interrupted = True
        self._supervisor.stop()

    def _write_log(self, program: str, lines: list[bytes]) -> None:
        self._files[program].write(lines)
        if self._following:
            self._print_lines(program, lines)

    def _print_lines(self, program: str, lines: list[bytes]) -> None:
        for line in lines:
            if (text := self._format(program, line)) is not None:
                self._terminal.print(text)

    def _notice(self, notice: Notice) -> None:
        child = notice.child
        self._say(
            notice.event,
            notice.text,
            program=child and child.program.name,
            exit_code=notice.exit_code,
            delay=notice.delay,
        )
        if (
            notice.event is Event.DIED
            and child
            and child.restarts == 1  # it will say the same the next times
            and not self._following
            and not self._as_json
        ):
            self._print_lines(child.program.name, list(child.tail))

    def _say(self, event: str, text: str, **fields: object) -> None:
        if self._as_json:
            known = {name: value for name, value in fields.items() if value is not None}
            self._terminal.print(json.dumps({"event": event, "ts": time.time(), **known}))
        else:
            self._terminal.print(f"shopctl: {text}")

    def _save(self) -> None:
        if self._save_again:
            self._save_again.cancel()
        try:
            state.write_run(self._home, self._run())
        except OSError:  # a full disk is no reason to end
            self._save_again = asyncio.get_running_loop().call_later(1.0, self._save)

    def _run(self) -> state.Run:
        ours = [
            state.ProcessRecord(
                name=child.program.name,
                address=child.program.address,
                pid=child.pid,
                state=child.state,
                restarts=child.restarts,
                started=child.started,
                reason=child.reason,
            )
            for child in self._supervisor.children
        ]
        others = [
            state.ProcessRecord(name, address, None, State.UNREACHABLE, 0, None, managed=False)
            for name, address in self._selection.left_out.items()
        ]
        insecure = self._authority is None
        forks = self._supervisor.forks
        return state.Run(
            *(os.getpid(), self._offset, self._started, [*ours, *others], insecure),
            forks=None if forks is None else forks.pid,
        )

    def _choose_format(self) -> Format:
        if self._as_json:
            return json_lines
        longest = max(len(program.name) for program in self._selection.programs)
        return Human(longest, wants_colour()) if is_terminal() else raw(longest)
