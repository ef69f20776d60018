"""A process that says when it is up, then prints every signal that it gets (after dumb-init's test program of that name).

It needs nothing but Python. Run as a file, so that a test can give it any name through a link to the interpreter.
"""

import argparse
import ctypes
import os
import signal
import sys
import threading
import time

SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
TAKEN = {*SIGNALS, signal.SIGTERM, signal.SIGCHLD}
_PR_SET_PDEATHSIG = 1


def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def end_with_parent():
    """A killed test run leaves nothing behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Workers:
    """Children as NGINX keeps them: a reload starts new ones before the old ones end, and one that crashed is replaced."""

    def __init__(self, count, *, linger):
        self.count = count
        self.linger = linger
        self.pids = set()

    def start(self):
        new = {self._fork() for _ in range(self.count)}
        self.pids |= new
        say("workers", *sorted(new))

    def replace(self):
        old = set(self.pids)
        self.start()
        self.pids -= old
        if not self.linger:
            for pid in old:
                os.kill(pid, signal.SIGTERM)

    def reap(self):
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self.pids:
                self.pids.discard(pid)
                self.pids.add(self._fork())
                say("replaced", pid)

    @staticmethod
    def _fork():
        pid = os.fork()
        if pid:
            return pid
        end_with_parent()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            time.sleep(60)


def options():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--handler", choices=["catch", "block", "sigwait", "ignore", "none"], default="catch", help="what it does with signals"
    )
    parser.add_argument("--late", action="store_true", help="have no handler until a line comes in")
    parser.add_argument("--like-go", action="store_true", help="catch what a Go runtime catches for itself")
    parser.add_argument("--die-on-hup", action="store_true", help="end on SIGHUP, as on a configuration that it cannot read")
    parser.add_argument("--workers", type=int, default=0, help="start that many, and new ones on SIGHUP")
    parser.add_argument("--linger", action="store_true", help="old workers do not end")
    parser.add_argument("--refuse", action="store_true", help="keep the old workers on SIGHUP, as on a configuration that is wrong")
    parser.add_argument("rest", nargs="*", help="what a test looks for in the command line")
    return parser.parse_args()


class Target:
    """The process itself."""

    def __init__(self, options):
        self.options = options
        self.workers = Workers(options.workers, linger=options.linger)
        self.waits = options.workers or options.handler in ("block", "sigwait")

    def install(self):
        handler = {"catch": self.on_signal, "ignore": signal.SIG_IGN}.get(self.options.handler)
        if handler is not None:
            for number in SIGNALS:
                signal.signal(number, handler)

    def on_signal(self, number, _frame=None):
        if number == signal.SIGTERM:
            os._exit(0)
        if number == signal.SIGCHLD:
            self.workers.reap()
            return
        say("signal", signal.Signals(number).name)
        if number == signal.SIGHUP and self.options.die_on_hup:
            os._exit(1)
        if number == signal.SIGHUP and self.options.workers and not self.options.refuse:
            self.workers.replace()

    def wait(self):
        while self.waits:
            self.on_signal(signal.sigwait(TAKEN))

    def run(self):
        if self.waits:
            signal.pthread_sigmask(signal.SIG_BLOCK, TAKEN)
        if self.options.like_go:
            for number in (signal.SIGSEGV, signal.SIGXFSZ):
                signal.signal(number, self.on_signal)
        if self.options.late:
            say("up")
            sys.stdin.readline()
        self.install()
        if self.options.workers:
            self.workers.start()
        say("ready" if self.options.late else "up")
        if self.options.handler == "block":
            threading.Thread(target=self.wait).start()
        else:
            self.wait()
        while True:
            time.sleep(60)


if __name__ == "__main__":
    end_with_parent()
    Target(options()).run()
