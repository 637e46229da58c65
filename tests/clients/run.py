"""Runs each third-party client against a sandbox of its own, and prints what held.

`scripts/clients.sh` installs the clients and calls this; nothing but Python's own library is used here. A client is one
file in `python/` or `node/` whose head names its package (`package: NAME`) and, where it needs any, the options of its
sandbox (`sandbox: --speed 30`). It prints `ok ...` or `FAILED ...` for each statement and exits 0 or 1.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent
# A debug build makes its keys and certificates in about a second; a loaded machine takes longer.
START_SECS = 60
# The slowest client takes about 40 s on two idle cores.
CLIENT_SECS = 300
# Clients mostly wait for their own timers, so some run at once, each with a sandbox of its own.
AT_ONCE = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sandbox", required=True, type=pathlib.Path, help="the calbridge-sandbox program")
    parser.add_argument("--python", required=True, type=pathlib.Path, help="Python of the environment with the clients")
    parser.add_argument("--node", required=True, type=pathlib.Path, help="folder with package.json and node_modules")
    parser.add_argument("--node-program", default="node", help="the Node program, version 20 or later")
    parser.add_argument("--list", action="store_true", help="only list the clients")
    parser.add_argument("clients", nargs="*", help="names of files, such as `jsforce_client`; all by default")
    options = parser.parse_args()
    files = sorted([*HERE.glob("python/*_client.py"), *HERE.glob("node/*_client.mjs")])
    if options.list:
        for file in files:
            print(f"{file.stem:36} {package(file)}")
        return 0
    if unknown := set(options.clients) - {file.stem for file in files}:
        parser.error(f"no such client: {', '.join(sorted(unknown))}; --list shows all")
    wanted = [file for file in files if not options.clients or file.stem in options.clients]
    # Modules are looked up beside the importing file, so the scripts go where node_modules is.
    for script in HERE.glob("node/*.mjs"):
        shutil.copy(script, options.node)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        rows = list(pool.map(lambda file: run(file, options), wanted))
    return summary(rows)


def run(file, options):
    lines = []
    row = observe(file, options, lines.append)
    # In one piece, so that clients that run at once do not mix their lines.
    sys.stdout.write("\n".join([f"\n-- {row[0]}: {row[1]}", *lines, ""]))
    sys.stdout.flush()
    return row


def observe(file, options, say):
    """Runs one client with a sandbox; returns its row of the summary."""
    name = package(file)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clients-") as folder:
        folder = pathlib.Path(folder)
        sandbox_log, client_log = folder / "sandbox.log", folder / "client.log"
        sandbox = start_sandbox(options.sandbox, file, folder, sandbox_log)
        held, failed, status = 0, 0, None
        try:
            if sandbox:
                held, failed, status = follow(command(file, options), folder, options.python.parents[1] / "bytecode", client_log, say)
        finally:
            problem = stop(sandbox)
        if status is None:
            say("FAILED  the sandbox starts")
            failed += 1
        elif problem:
            say(f"FAILED  the sandbox ends in good order: {problem}")
            failed += 1
        elif status != 0 and not failed:
            say(f"FAILED  the client ends in good order: exit code {status}")
            failed += 1
        elif panicked(sandbox_log):
            say("FAILED  the sandbox does not panic")
            failed += 1
        if failed:
            show(sandbox_log, "sandbox", say)
            show(client_log, "client", say)
    return file.stem, name, held, failed, time.monotonic() - began


def start_sandbox(program, file, folder, log):
    endpoints = folder / "endpoints.json"
    arguments = [program, "serve", "--endpoints", endpoints, "--state-dir", folder / "state", *head(file, "sandbox").split()]
    with open(log, "wb") as output:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    end = time.monotonic() + START_SECS
    # The file appears, whole, when every server accepts connections.
    while not endpoints.exists():
        if process.poll() is not None or time.monotonic() > end:
            stop(process)
            return None
        time.sleep(0.05)
    return process


def stop(process):
    """Ends the sandbox; returns what was wrong with its end."""
    if process is None:
        return None
    if process.poll() is not None:
        return f"it ended by itself with {process.returncode}"
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return "it did not end within 20 s of SIGTERM"
    return None if process.returncode == 0 else f"exit code {process.returncode}"


def command(file, options):
    if file.suffix == ".py":
        return [options.python, file], file.parent
    return [options.node_program, options.node / file.name], options.node


def follow(program, folder, bytecode, log, say):
    """Runs a client, repeats its lines, and counts them; returns the counts and the exit code."""
    arguments, place = program
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment |= {
        "SANDBOX_ENDPOINTS": str(folder / "endpoints.json"),
        "NODE_EXTRA_CA_CERTS": json.loads((folder / "endpoints.json").read_text())["ca_certificate"],
        # Neither the source tree nor the installed packages are written to.
        "PYTHONPYCACHEPREFIX": str(bytecode),
        "PUBSUB_PROTO": str(HERE.parents[1] / "crates/pubsub-proto/proto/pubsub_api.proto"),
        "TMPDIR": str(folder),
    }
    held = failed = 0
    with open(log, "wb") as errors:
        process = subprocess.Popen(
            arguments, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        # A client that neither speaks nor ends is ended; its own deadlines are shorter.
        guard = threading.Timer(CLIENT_SECS, process.kill)
        guard.start()
        for line in process.stdout:
            say(line.rstrip())
            held += line.startswith("ok ")
            failed += line.startswith("FAILED ")
        status = process.wait()
        guard.cancel()
    return held, failed, status


def head(file, name):
    match = re.search(rf"^\W*{name}: (.+)$", file.read_text(encoding="utf-8")[:2000], re.MULTILINE)
    return match.group(1).strip() if match else ""


def package(file):
    """Returns the package that a client tests, with its pinned version."""
    name = head(file, "package")
    if file.suffix == ".py":
        pins = (HERE / "requirements.txt").read_text(encoding="utf-8")
        match = re.search(rf"^{re.escape(name)}==(\S+)", pins, re.MULTILINE)
        return f"{name} {match.group(1)}" if match else name or "Python's own library"
    version = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["dependencies"].get(name)
    return f"{name} {version}" if version else name


def panicked(log):
    return b"panicked at" in log.read_bytes()


def show(log, whose, say):
    if log.exists() and (text := log.read_text(encoding="utf-8", errors="replace").strip()):
        say(f"-- last words of the {whose}:")
        for line in text.splitlines()[-40:]:
            say(f"   {line[:300]}")


def summary(rows):
    print(f"\n{'client':34} {'package':40} {'held':>5} {'failed':>7} {'secs':>6}")
    for name, package_name, held, failed, secs in rows:
        print(f"{name:34} {package_name:40} {held:>5} {failed:>7} {secs:>6.1f}")
    held, failed = sum(row[2] for row in rows), sum(row[3] for row in rows)
    print(f"\nclients: {held} passed, {failed} failed", flush=True)
    return 1 if failed or not held else 0


sys.exit(main())
