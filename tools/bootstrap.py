"""Makes .venv with everything in it: `python3 tools/bootstrap.py run|dev`.

For the standard library only, and readable by old Pythons, so that they can say what is wrong. Third-party
packages come first, with the versions of constraints.txt; then our own in one call that asks no registry. A second
call sees from the stamps that nothing has changed.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time
from typing import Iterator, List, NoReturn, Optional

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
OLDEST = (3, 11)
NEWER = ("python3.14", "python3.13", "python3.12", "python3.11")
PIP = [PYTHON, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
BEGAN = time.time()


def say(line: str) -> None:
    """Tell a step with its time."""
    print("%6.1f s  %s" % (time.time() - BEGAN, line), flush=True)


def fail(line: str) -> NoReturn:
    """End with a sentence."""
    print(line, file=sys.stderr)
    sys.exit(1)


def runs(python: str) -> bool:
    """Say whether a program named like a Python is one: version managers put up names that lead nowhere."""
    done = subprocess.run(
        [python, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    return done.returncode == 0


def choose_python() -> None:
    """Go on with a Python that is new enough, or end with a sentence."""
    if sys.version_info >= OLDEST:
        return
    for newer in filter(None, map(shutil.which, NEWER)):
        if runs(newer):
            os.execv(newer, [newer] + sys.argv)
    fail(
        "Python 3.11 or newer is needed; this is %d.%d (%s) and no newer one is on the PATH."
        % (sys.version_info[0], sys.version_info[1], sys.executable)
    )


def own_packages() -> List[str]:
    """List the folders of our own packages."""
    found = [os.path.join(ROOT, "tools")]
    for group in ("libs", "services"):
        folder = os.path.join(ROOT, group)
        found += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return [folder for folder in found if os.path.exists(os.path.join(folder, "pyproject.toml"))]


def digest(paths: List[str]) -> str:
    """Give a digest of the files and of where everything is: a copied tree needs a .venv of its own."""
    total = hashlib.sha256(repr((ROOT, sys.version_info[:2])).encode())
    for path in paths:
        with open(path, "rb") as handle:
            total.update(handle.read())
    return total.hexdigest()


def is_stamped(name: str, value: str) -> bool:
    """Say whether this step was done for these files."""
    try:
        with open(os.path.join(VENV, "." + name)) as handle:
            return handle.read() == value
    except OSError:
        return False


def stamp(name: str, value: str) -> None:
    """Remember that this step is done."""
    with open(os.path.join(VENV, "." + name), "w") as handle:
        handle.write(value)


def make_venv() -> None:
    """Make the virtual environment, or end with what is missing; one that works is taken as it is."""
    value = digest([])
    if is_stamped("eb-venv", value) and os.path.exists(PYTHON):
        return
    if works():
        stamp("eb-venv", value)
        return
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        fail(
            "This Python can't make virtual environments; its venv module is missing."
            " On Debian or Ubuntu: apt install python%d.%d-venv" % sys.version_info[:2]
        )
    done = run([sys.executable, "-m", "venv", "--clear", VENV])
    if done.returncode != 0:
        fail("The virtual environment can't be made: " + reason(done))
    stamp("eb-venv", value)
    say("made .venv with Python %d.%d.%d" % sys.version_info[:3])


def works() -> bool:
    """Say whether .venv is a working environment here: one that was copied from elsewhere isn't."""
    if not os.path.exists(PYTHON):
        return False
    question = "import sys, pip; print(sys.prefix, sys.version_info >= %r)" % (OLDEST,)
    return run([PYTHON, "-c", question]).stdout.split() == [VENV, "True"]


def install_third_party(kind: str) -> None:
    """Install the packages of requirements-<kind>.txt at the versions of constraints.txt; dev holds run too."""
    needed = ("requirements-run.txt", "constraints.txt", "requirements-ops.txt", "requirements-services.txt")
    files = [os.path.join(ROOT, name) for name in needed]
    wanted = os.path.join(ROOT, "requirements-%s.txt" % kind)
    value = digest(files + [wanted])
    if is_stamped("eb-" + kind, value):
        return
    say("installing packages (a minute when they have to be downloaded)")
    install(["-r", wanted, "-c", files[1]])
    stamp("eb-run", digest(files + files[:1]))
    stamp("eb-" + kind, value)
    say("third-party packages are installed")


def install_own() -> None:
    """Install our own packages, editable, without asking any registry for their names."""
    folders = own_packages()
    value = digest([os.path.join(folder, "pyproject.toml") for folder in folders])
    if is_stamped("eb-own", value):
        return
    editable = [part for folder in folders for part in ("-e", folder)]
    install(["--no-deps", "--no-build-isolation", "--no-index"] + editable)
    stamp("eb-own", value)
    say("our own %d packages are installed" % len(folders))


def install(arguments: List[str]) -> None:
    """Run pip, or end with the line that says why it failed."""
    as_root = ["--root-user-action=ignore"] if os.geteuid() == 0 else []
    done = run(PIP + as_root + arguments)
    if done.returncode != 0:
        fail("The packages can't be installed: " + reason(done))


def run(command: List[str]) -> "subprocess.CompletedProcess[str]":
    """Run a command without showing its output."""
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# What pip says when nothing is found at all; with constraints it takes an empty answer for a conflict.
NOTHING_FOUND = ("NewConnectionError", "Max retries", "No matching distribution", "ResolutionImpossible")


def reason(done: "subprocess.CompletedProcess[str]") -> str:
    """Pick the telling line of a failed command's output."""
    text = done.stderr + done.stdout
    if "No space left" in text:
        return "the disk is full."
    if any(sign in text for sign in NOTHING_FOUND):
        return "the package registry can't be reached, or lacks a version. Is there a network?"
    return last_line(text)


def last_line(text: str) -> str:
    """Give the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and "[notice]" not in line]
    return lines[-1] if lines else "no reason given."


def fetch_programs() -> "Optional[subprocess.Popen[bytes]]":
    """Let RabbitMQ and HAProxy be unpacked meanwhile; what goes wrong there is said when they are started."""
    if os.environ.get("AMQP_URL") or not shutil.which("apt-get"):
        return None
    environment = dict(os.environ, PYTHONPATH=os.path.join(ROOT, "tools", "src"))
    return subprocess.Popen(
        [sys.executable, "-m", "eb_tools.debian"], env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Let two commands that start at once work one after the other."""
    import fcntl

    os.makedirs(VENV, exist_ok=True)
    with open(os.path.join(ROOT, ".venv.lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def main() -> None:
    """Make everything that is missing."""
    choose_python()
    kind = sys.argv[1] if len(sys.argv) > 1 else "run"
    programs = fetch_programs()
    try:
        with only_one():
            make_venv()
            install_third_party(kind)
            install_own()
        if programs is not None:
            programs.wait()
    except OSError as error:
        fail("%s: %s." % (error.filename or ROOT, error.strerror))
    finally:
        if programs is not None and programs.poll() is None:
            programs.kill()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
