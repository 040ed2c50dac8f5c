"""place.py: where the benchmark's PostgreSQL is, who runs it, and where its files are.

Like the tests and the demo: a relocated copy of PostgreSQL in a work folder outside of the repository (scripts/environment,
scripts/private-install), run by an unprivileged user when we are root, since initdb refuses root.  The generator of
events is compiled into that folder too.  Everything but the copy is removed at the end.
"""
import fcntl
import os
import pwd
import shutil
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(HERE)

FIND = """
set -e
. "$0/scripts/environment"
find_work
# A copy of its own: tests that run meanwhile change theirs.
export BEHAVIOR_WORK=$work-bench
find_work
"$repository/scripts/dependencies" >&2
echo "$work"
echo "$server_user"
"$repository/scripts/private-install"
"""


class Place:
    """folder is ours, and readable by everybody; server is in a folder that belongs to the server's user."""

    def __init__(self, bindir=None, folder=None):
        if bindir:
            self.home = os.path.abspath(folder)
            self.user = "postgres" if any(user.pw_name == "postgres" for user in pwd.getpwall()) else "nobody"
            self.bindir = os.path.abspath(bindir)
            os.makedirs(self.home, exist_ok=True)
        else:
            found = subprocess.run(["bash", "-c", FIND, REPOSITORY], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   check=True).stdout.decode().split("\n")
            self.home, self.user, config = found[:3]
            self.bindir = subprocess.run([config, "--bindir"], stdout=subprocess.PIPE, check=True).stdout.decode().strip()
        self.folder = os.path.join(self.home, "bench")
        self.today = int(time.time()) // 86400      # also after midnight, so that both sides get the same events
        self.server = os.path.join(self.folder, "server", "pg")
        with open(os.path.join(REPOSITORY, "scripts", "server"), encoding="utf-8") as file:
            self.functions = file.read()
        self.lock = open(os.path.join(self.home, "bench.lock"), "w", encoding="ascii")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit("another run is at work in %s" % self.home) from None
        self.remove()       # what a run left that was killed
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(os.path.join(self.folder, "events"), mode=0o755)
        self.generator = os.path.join(self.folder, "generate")
        try:
            subprocess.run([os.environ.get("CC", "cc"), "-O2", "-o", self.generator,
                            os.path.join(HERE, "generate.c"), "-lm"], check=True)
        except BaseException:
            self.clean()
            raise

    def become(self):
        """Arguments of subprocess.run that run something as the server's user."""
        arguments = {"cwd": "/", "stdin": subprocess.DEVNULL}
        if os.getuid() == 0:
            user = pwd.getpwnam(self.user)
            arguments.update(user=user.pw_uid, group=user.pw_gid, extra_groups=[])
            arguments["env"] = dict(os.environ, HOME=self.home, USER=self.user, LOGNAME=self.user)
        return arguments

    def call(self, function, *arguments):
        """A function of scripts/server, whose text is handed over: its user may be unable to read it here."""
        # Its output must not be a pipe: the server would hold it open.
        with open(os.path.join(self.home, "bench-server.log"), "ab") as log:
            done = subprocess.run(["bash", "-c", 'bin=$0\n%s\n"$@"' % self.functions, self.bindir, function, *arguments],
                                  stdout=log, stderr=log, check=False, **self.become())
        if done.returncode:
            raise RuntimeError("%s failed; see %s" % (function, log.name))

    @staticmethod
    def settings(smoke):
        """The same for both sides; durability is PostgreSQL's default, but in a smoke test."""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        settings = {"shared_preload_libraries": "behavior", "behavior.worker": "off",
                    "shared_buffers": "%dMB" % min(2048, memory // 4 // 2 ** 20), "max_wal_size": "8GB",
                    "checkpoint_timeout": "30min"}
        if smoke:
            settings.update({"shared_buffers": "64MB", "fsync": "off"})
        return settings

    def start(self, settings):
        """Starts a fresh server; answers with the environment in which clients find it."""
        self.remove()
        parent = os.path.dirname(self.server)
        os.makedirs(parent, mode=0o755, exist_ok=True)
        if os.getuid() == 0:
            user = pwd.getpwnam(self.user)
            os.chown(parent, user.pw_uid, user.pw_gid)
        self.call("start_server", self.server, *("%s = '%s'" % item for item in settings.items()))
        with open(os.path.join(self.server, "socket"), encoding="utf-8") as file:
            socket = file.read().strip()
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
        environment.update(PGHOST=socket, PGPORT="5432", PGUSER="postgres", PGCLIENTENCODING="UTF8", LC_ALL="C")
        return environment

    def remove(self):
        if os.path.exists(self.server):
            self.call("remove_server", self.server)

    def events(self, name, arguments):
        path = os.path.join(self.folder, "events", name)
        if not os.path.exists(path):
            with open(path + ".part", "wb") as file:
                subprocess.run([self.generator, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=file, check=True)
            os.rename(path + ".part", path)
        return path

    def clean(self):
        self.remove()
        shutil.rmtree(self.folder, ignore_errors=True)
