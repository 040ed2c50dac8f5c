"""A private server, and psql as the way to it: nothing but the standard library is needed."""
import decimal
import json
import os
import re
import signal
import shutil
import subprocess
import tempfile
import time

# What a sender may meet when a server is killed under it, and a deadlock of its own, which a retry heals.
GONE = re.compile(r"server closed the connection|connection to server|terminating connection|the database system is|"
                  r"could not receive data|SSL SYSCALL|not yet accepting|no connection to the server")
STATE = re.compile(r"(?:ERROR|FATAL|PANIC):  (\w{5}):")


class Failed(Exception):
    """psql said no: state is the SQLSTATE, None when the connection went away."""

    def __init__(self, message):
        super().__init__(message)
        states = STATE.findall(message)
        self.gone = bool(GONE.search(message)) or any(s.startswith(("57P", "08")) for s in states)
        self.state = states[0] if states else None
        # behavior-load shows no SQLSTATE.
        if self.state is None and "deadlock detected" in message:
            self.state = "40P01"


class Server:
    def __init__(self, bindir, folder, settings):
        self.bindir = bindir
        self.folder = folder
        self.data = os.path.join(folder, "data")
        # A short path: that of a socket is at most 107 bytes long.
        self.socket = tempfile.mkdtemp(prefix="behavior.", dir="/tmp")
        os.makedirs(folder, exist_ok=True)
        self.command("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8", "--locale=C")
        with open(os.path.join(self.data, "postgresql.conf"), "a", encoding="utf-8") as conf:
            conf.write("listen_addresses = ''\nunix_socket_directories = '%s'\nport = 5432\n" % self.socket)
            conf.write("timezone = 'UTC'\nlc_messages = 'C'\nfsync = off\nlog_line_prefix = '%m [%p] %q%a '\n")
            conf.writelines("%s\n" % line for line in settings)
        self.start()

    def command(self, program, *arguments):
        done = subprocess.run([os.path.join(self.bindir, program), *arguments], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise RuntimeError("%s: %s" % (program, done.stdout.decode(errors="replace")))

    def pg_ctl(self, *arguments):
        # Its output must not be a pipe: the server would hold it open.
        with open(os.path.join(self.folder, "pg_ctl.log"), "ab") as log:
            return subprocess.run([os.path.join(self.bindir, "pg_ctl"), "-D", self.data, "-w", *arguments],
                                  stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False).returncode

    def start(self):
        if self.pg_ctl("-l", os.path.join(self.folder, "log"), "start"):
            raise RuntimeError("the server does not start; see %s/log" % self.folder)

    def stop(self, mode="fast"):
        self.pg_ctl("-m", mode, "stop")

    def remove(self):
        self.stop("immediate")
        shutil.rmtree(self.socket, ignore_errors=True)
        shutil.rmtree(self.data, ignore_errors=True)

    def psql(self, *arguments, stdin=b"", database="oracle", options="", program="psql"):
        """Runs psql; raises Failed.  Returns its output."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        environment.update(PGHOST=self.socket, PGPORT="5432", PGUSER="postgres", PGDATABASE=database,
                           PGOPTIONS=options, PGCLIENTENCODING="UTF8")
        if program == "psql":
            arguments = ("-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose") + arguments
        done = subprocess.run([os.path.join(self.bindir, program), *arguments], input=stdin, env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise Failed(done.stderr.decode(errors="replace"))
        return done.stdout.decode()

    def run(self, *statements, **options):
        return self.psql(*(x for s in statements for x in ("-c", s)), **options)

    def rows(self, query, **options):
        """The rows of a query as dicts, numbers as Decimal."""
        out = self.run("COPY (SELECT row_to_json(q) FROM (%s) q) TO STDOUT "
                       "WITH (FORMAT csv, QUOTE E'\\x01', DELIMITER E'\\x02')" % query, **options)
        return [json.loads(line, parse_float=decimal.Decimal, parse_int=decimal.Decimal)
                for line in out.split("\n") if line]

    def value(self, query, **options):
        return self.run(query, **options).strip()

    def patiently(self, action, seconds=60):
        """Repeats what fails only because the server is being restarted."""
        end = time.monotonic() + seconds
        while True:
            try:
                return action()
            except Failed as failure:
                if not (failure.gone or failure.state == "40P01") or time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def kill(self, rng, kinds):
        """SIGKILL to a backend of these kinds; the server then restarts all of itself."""
        pids = [int(r["pid"]) for r in self.rows("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND "
                                                 "backend_type ~ '%s'" % kinds, database="postgres")]
        if not pids:
            return False
        try:
            os.kill(rng.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True
