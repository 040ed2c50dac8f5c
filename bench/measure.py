"""measure.py: what a piece of work costs: wall time, processor, instructions, WAL, memory.

Everything is read from outside of the server: /proc/PID/schedstat (processor time), /proc/PID/status
(memory), `perf stat` (instructions) and the WAL's insert position.  What a system does not have
(perf, or /proc) is None, never zero.
"""
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time

MARK = "-- bench: done --"


class Failed(Exception):
    """A client said no; the message is what it wrote to stderr."""


def cpu_seconds(pid):
    """Processor time of a process so far, by the scheduler; None when it is gone or unknown."""
    try:
        with open("/proc/%d/schedstat" % pid, encoding="ascii") as file:
            return int(file.read().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def private_bytes(pid):
    """Private memory of a process (RssAnon: shared buffers and files do not count); None when unknown."""
    try:
        with open("/proc/%d/status" % pid, encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith("RssAnon:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return None


def difference(after, before):
    return None if after is None or before is None else after - before


def total(values):
    """The sum; None when a part of it is unknown."""
    values = list(values)
    return None if not values or any(v is None for v in values) else sum(values)


class Session:
    """A psql that stays connected to one backend: `pid` is the backend's, `idle` its private memory
    when it had just connected.

    run(sql) answers with psql's unaligned output.  Use as a context manager, or close() it.
    """

    def __init__(self, command, environment, **popen):
        self.messages = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.messages, **popen)
        self.pid = int(self.run("SELECT pg_backend_pid()"))
        self.idle = private_bytes(self.pid)

    def run(self, sql):
        try:
            self.process.stdin.write(("%s\n;\n\\echo %s\n" % (sql.rstrip().rstrip(";"), MARK)).encode())
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        lines = []
        while True:
            line = self.process.stdout.readline().decode(errors="replace")
            if not line:
                self.process.wait()
                self.messages.seek(0)
                raise Failed(self.messages.read().decode(errors="replace").strip() or "psql ended")
            if line.rstrip("\n") == MARK:
                return "".join(lines).rstrip("\n")
            lines.append(line)

    def close(self):
        if self.process.poll() is None:
            try:
                self.process.stdin.close()
                self.process.wait(3)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()
                self.process.wait()
        self.process.stdout.close()
        self.messages.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Instructions:
    """Counts the instructions of processes with `perf stat`, switched on and off to the moment."""

    works = None        # found out at first use

    def __init__(self, pids):
        self.pids = pids
        self.process = None

    @classmethod
    def available(cls):
        if cls.works is None:
            cls.works = False
            if shutil.which("perf"):
                probe = cls([os.getpid()])
                cls.works = True
                probe.begin()
                sum(range(1000))
                cls.works = bool(probe.end())
        return cls.works

    def begin(self):
        if not self.available():
            return
        self.control = os.pipe()
        self.answer = os.pipe()
        self.output = tempfile.TemporaryFile()
        for fd in (self.control[0], self.answer[1]):
            os.set_inheritable(fd, True)
        self.process = subprocess.Popen(
            ["perf", "stat", "-x", ",", "-D", "-1", "--control", "fd:%d,%d" % (self.control[0], self.answer[1]),
             "-e", "instructions:u,instructions:k", "-p", ",".join(str(pid) for pid in self.pids)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.output, close_fds=False,
            start_new_session=True)
        os.close(self.control[0])
        os.close(self.answer[1])
        self.say(b"enable\n")

    def say(self, word):
        try:
            os.write(self.control[1], word)
            os.read(self.answer[0], 16)     # "ack", or the end of the file when perf is gone
        except OSError:
            pass

    def end(self):
        """The instructions since begin(); None when they cannot be counted here."""
        if self.process is None:
            return None
        self.say(b"disable\n")
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        os.close(self.control[1])
        os.close(self.answer[0])
        self.output.seek(0)
        text = self.output.read().decode(errors="replace")
        self.output.close()
        counts = [line.split(",")[0] for line in text.splitlines() if "instructions" in line]
        return sum(map(int, counts)) if counts and all(c.isdigit() for c in counts) else None


class Sampler(threading.Thread):
    """Looks at processes every few milliseconds: the most private memory they had, the last processor time.

    `find` answers with the ids of the processes; it is asked again while `follow` is set.
    """

    def __init__(self, find, follow=False, interval=0.02):
        super().__init__(daemon=True)
        self.find = find
        self.follow = follow
        self.interval = interval
        self.peak = {}
        self.cpu = {}
        self.over = threading.Event()

    def run(self):
        pids, asked = self.find(), time.monotonic()
        while True:
            for pid in pids:
                memory, cpu = private_bytes(pid), cpu_seconds(pid)
                if memory is not None:
                    self.peak[pid] = max(memory, self.peak.get(pid, 0))
                if cpu is not None:
                    self.cpu[pid] = cpu
            if self.over.wait(self.interval):
                return
            if self.follow and time.monotonic() - asked > 0.5:
                pids, asked = self.find(), time.monotonic()

    def end(self):
        self.over.set()
        self.join()


def together(works, position):
    """Runs [(Session, sql), ...] at the same time and says what that cost.

    seconds       from the common start to the last end
    cpu           processor seconds of the backends, together
    instructions  of the backends, together
    wal           bytes of WAL written by the whole server meanwhile
    memory        the most private memory that one of the backends took, over that of the same one idle
    output        what they answered
    position() is the WAL's insert position in bytes.
    """
    sessions = [session for session, _ in works]
    results = [None] * len(works)
    seconds = [None] * len(works)

    def one(number):
        session, sql = works[number]
        begin.wait()
        try:
            results[number] = session.run(sql)
        except Failed as failure:
            results[number] = failure
        seconds[number] = time.monotonic()

    begin = threading.Barrier(len(works) + 1)
    threads = [threading.Thread(target=one, args=(number,), daemon=True) for number in range(len(works))]
    for thread in threads:
        thread.start()
    instructions = Instructions([s.pid for s in sessions])
    instructions.begin()
    sampler = Sampler(lambda: [s.pid for s in sessions])
    sampler.start()
    wal = position()
    cpu = [cpu_seconds(s.pid) for s in sessions]
    begin.wait()
    start = time.monotonic()
    for thread in threads:
        thread.join()
    counted = instructions.end()
    wal = position() - wal
    cpu = [difference(cpu_seconds(s.pid), before) for s, before in zip(sessions, cpu)]
    sampler.end()
    for result in results:
        if isinstance(result, Failed):
            raise result
    peaks = [difference(sampler.peak.get(s.pid), s.idle) for s in sessions]
    return {"seconds": max(seconds) - start, "cpu": total(cpu), "instructions": counted, "wal": wal,
            "memory": None if None in peaks else max(peaks), "output": results}


def percentile(values, share):
    """The nearest-rank percentile of sorted values."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else None
