#!/usr/bin/env python3
"""Runs every test of the project; scripts/test installs what it needs and calls it.

  run.py [fast] [STEP...]    all steps, or those named; fast leaves out what needs a running system or a second build
  run.py --list              the names of the steps

Each step has a time limit and its output in build/test-logs/STEP.log; a failed one shows the end of it. The last line is
"N passed, N failed, N skipped"; the exit status is 1 when something failed.
"""
import base64
import concurrent.futures
import glob
import os
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree

ROOT = os.path.realpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
LOGS = os.path.join(ROOT, "build", "test-logs")
TAIL_LINES = 60
FUZZ_INPUT_BYTES = 8192
# All steps together, however many hang: continuous integration must have its verdict within the hour.
DEADLINE = time.monotonic() + float(os.environ.get("KARST_TEST_LIMIT_S", 55 * 60))


class Results:
    """Counts, and one line a finding. Thread-safe."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.lock = threading.Lock()

    def add(self, passed=0, failed=0, skipped=0):
        with self.lock:
            self.passed += passed
            self.failed += failed
            self.skipped += skipped

    def say(self, text):
        with self.lock:
            print(text, flush=True)

    def one(self, good, name, seconds, output=""):
        self.add(passed=int(good), failed=int(not good))
        lines = output.rstrip().splitlines()[-TAIL_LINES:]
        end = "" if good or not lines else "\n    " + "\n    ".join(lines)
        self.say(f"{'ok  ' if good else 'FAIL'} {name} ({seconds:.1f} s){end}")

    def skip(self, name, why, count=1):
        self.add(skipped=count)
        self.say(f"skip {name}: {why}")


RESULTS = Results()


def run(name, command, timeout_s, env=None):
    """(status, output, seconds); the output goes to the step's log, too. Past its time the whole session of the command is killed."""
    path = os.path.join(LOGS, re.sub(r"[^\w.-]+", "_", name) + ".log")
    started = time.monotonic()
    timeout_s = max(1, min(timeout_s, DEADLINE - started))
    with open(path, "wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                   start_new_session=True, env={**os.environ, **(env or {})})
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = -1
            log.write(f"\nended: more than {timeout_s:.0f} s\n".encode())
    with open(path, encoding="utf-8", errors="replace") as log:
        return status, log.read(), time.monotonic() - started


def simple(name, command, timeout_s, env=None):
    status, output, seconds = run(name, command, timeout_s, env)
    RESULTS.one(status == 0, name, seconds, output)
    return status == 0


def side_by_side(jobs):
    """Runs the functions on as many threads as there are cores."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for future in [pool.submit(job) for job in jobs]:
            future.result()


# ------------------------------------------------------------------------------------------------------------------- building

BUILT = {}


def build(preset, targets=()):
    """Builds once; False, and one failure counted, when it does not."""
    key = (preset, tuple(targets))
    if key not in BUILT:
        folder = os.path.join("build", preset)
        good = os.path.exists(os.path.join(ROOT, folder, "build.ninja")) or \
            simple(f"configure {preset}", ["cmake", "--preset", preset], 300)
        command = ["cmake", "--build", folder] + (["--target", *targets] if targets else [])
        BUILT[key] = good and simple(f"build {preset}", command, 2400)
    return BUILT[key]


def unit_names():
    names = []
    for path in sorted(glob.glob(os.path.join(ROOT, "tests/unit/*/CMakeLists.txt"))):
        with open(path, encoding="utf-8") as f:
            names += [f"unit_{n}" for n in re.findall(r"^karst_unit\((\w+)", f.read(), re.M)]
    return names


# ---------------------------------------------------------------------------------------------------------------------- steps

def step_format():
    simple("format", ["scripts/format", "--check"], 120)


def step_includes():
    simple("includes", ["scripts/check-includes"], 60)


def step_compatibility():
    simple("compatibility page", ["tools/compatibility.py", "--check"], 60)
    simple("honoured keys", ["tools/compatibility.py", "--check-honoured"], 60)


def run_unit(preset, name, env):
    """A Criterion program counts as its tests; one that says nothing counts as one failure."""
    status, output, seconds = run(f"{preset} {name}", [f"build/{preset}/bin/{name}"], 300, env)
    found = re.search(r"Tested: \S*?(\d+)\S* \| Passing: \S*?(\d+)\S* \| Failing: \S*?(\d+)\S* \| Crashing: \S*?(\d+)",
                      re.sub(r"\x1b\[[\d;]*m", "", output))
    passed = int(found[2]) if found else 0
    failed = int(found[3]) + int(found[4]) if found else 1
    if status != 0:
        failed = max(failed, 1)
    RESULTS.add(passed=passed, failed=failed)
    tail = "" if failed == 0 else "\n    " + "\n    ".join(output.rstrip().splitlines()[-TAIL_LINES:])
    RESULTS.say(f"{'FAIL' if failed else 'ok  '} {preset} {name}: {passed} passed, {failed} failed ({seconds:.1f} s){tail}")


def units(preset, names, env=None):
    side_by_side([lambda n=n: run_unit(preset, n, env) for n in names])


def step_unit():
    if build("release"):
        units("release", unit_names())


def step_ctest():
    """What CMake knows as tests beside the Criterion programs."""
    if not build("release"):
        return
    report = os.path.join(LOGS, "ctest.xml")
    status, output, seconds = run("ctest", ["ctest", "--test-dir", "build/release", "-E", "^unit_", "-j", str(os.cpu_count() or 2),
                                            "--timeout", "300", "--output-on-failure", "--output-junit", report], 1200)
    count_junit("ctest", report, status, output, seconds)


def count_junit(name, report, status, output, seconds):
    if not os.path.exists(report):
        if "No tests were found" in output:
            RESULTS.say(f"ok   {name}: none ({seconds:.1f} s)")
        else:
            RESULTS.one(False, name, seconds, output)
        return
    passed, failed, skipped = 0, [], []
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        title = "::".join(filter(None, (case.get("classname"), case.get("name"))))
        skip, bad = case.find("skipped"), [e for e in (case.find("failure"), case.find("error")) if e is not None]
        if bad:
            failed.append((title, (bad[0].get("message") or "") + "\n" + (bad[0].text or "")))
        elif skip is not None or case.get("status") == "notrun":
            skipped.append((title, skip.get("message") if skip is not None else "not run"))
        else:
            passed += 1
    RESULTS.add(passed=passed, failed=len(failed))
    for title, text in failed:
        lines = text.strip().splitlines()
        RESULTS.say(f"FAIL {name} {title}\n    " + "\n    ".join(lines[-TAIL_LINES:]))
    for title, why in skipped:
        RESULTS.skip(f"{name} {title}", why or "no reason given")
    RESULTS.say(f"{'FAIL' if failed or status else 'ok  '} {name}: {passed} passed, {len(failed)} failed, {len(skipped)} skipped "
                f"({seconds:.1f} s)")
    if status != 0 and not failed:
        RESULTS.one(False, f"{name} as a whole", seconds, output)


SUPPRESSIONS = f"suppressions={ROOT}/tests/sanitizers"
PROGRAMS = ["karst"] + [f"karst-{role}" for role in ("controller", "storage", "frontend", "group", "txn")]


def step_asan():
    if build("asan", [*unit_names(), *PROGRAMS]):
        units("asan", unit_names(), {"LSAN_OPTIONS": f"{SUPPRESSIONS}/lsan.txt"})
        sanitized_system("asan", "ASAN_OPTIONS", "quarantine_size_mb=8:detect_leaks=0",
                         [*(f"tests/acceptance/test_{t}.py" for t in ("bad_input", "clients", "fetch_sessions")),
                          "-k", "not million and not kafka"])


def step_tsan():
    """The programs at work: Criterion itself cannot run under ThreadSanitizer."""
    if build("tsan", PROGRAMS):
        sanitized_system("tsan", "TSAN_OPTIONS", f"{SUPPRESSIONS}/tsan.txt:exitcode=0",
                         ["tests/acceptance/test_clients.py", "-k", "not million"])


def sanitized_system(preset, variable, options, tests):
    """Acceptance tests over instrumented programs; each report of a sanitizer is a failure."""
    reports = os.path.join(LOGS, f"{preset}-report")
    for old in glob.glob(f"{reports}.*"):
        os.remove(old)
    acceptance(f"{preset} system", tests, {"KARST_BIN": os.path.join(ROOT, "build", preset, "bin"),
                                           variable: f"{options}:log_path={reports}"})
    found = sorted(glob.glob(f"{reports}.*"))
    for path in found:
        with open(path, encoding="utf-8", errors="replace") as f:
            RESULTS.one(False, f"{preset} report", 0, "".join(f.readlines()[:TAIL_LINES]))
    if not found:
        RESULTS.one(True, f"{preset} has nothing to report", 0)


def fuzzers():
    return sorted(os.path.basename(p)[:-2] for p in glob.glob(os.path.join(ROOT, "tests/fuzz/fuzz_*.c")))


def fuzz_report(output):
    """Of a failed fuzzer's output, its report without the corpus news before it, and the input: CI keeps nothing else."""
    lines = output.rstrip().splitlines()
    found = (i for i, line in enumerate(lines) if re.search(r"BUG|ERROR|Sanitizer|runtime error", line))
    lines = lines[next(found, -TAIL_LINES):][:TAIL_LINES - 1]
    unit = re.search(r"Test unit written to (\S+)", output)
    if unit and os.path.exists(os.path.join(ROOT, unit[1])):
        with open(os.path.join(ROOT, unit[1]), "rb") as f:
            lines.append("the input, in base64: " + base64.b64encode(f.read(FUZZ_INPUT_BYTES)).decode())
    return "\n".join(lines)


def fuzz(seconds):
    def smoke(name):
        corpus = os.path.join(ROOT, "build", "fuzz-corpus", name)
        os.makedirs(corpus, exist_ok=True)
        status, output, took = run(f"fuzz {name}", [f"build/fuzz/bin/{name}", f"-max_total_time={seconds}", "-timeout=10",
                                                    "-rss_limit_mb=2048", f"-artifact_prefix=build/test-logs/{name}-", corpus],
                                   seconds + 60)
        RESULTS.one(status == 0, f"fuzz {name}", took, fuzz_report(output))
    if build("fuzz", fuzzers()):
        side_by_side([lambda n=n: smoke(n) for n in fuzzers()])


def step_fuzz():
    fuzz(10)


def step_fuzz_short():
    fuzz(4)


def step_sim():
    """A fixed seed twice: the same trace; and a new seed each time, printed."""
    if not os.path.exists(os.path.join(ROOT, "scripts/sim")):
        RESULTS.one(False, "sim", 0, "there is no scripts/sim")
    elif build("release"):
        simple("sim check", ["scripts/sim", "--check"], 600)


def torture(how, timeout_s, *more):
    """libs/log on a disk whose calls fail, stop short, die and lose power, against a model."""
    if build("release", ["torture"]):
        simple(f"torture {how}", ["build/release/bin/torture", f"--{how}", *more], timeout_s)


def step_torture():
    torture("full", 600, "--seed", "1")


def step_torture_short():
    torture("short", 120)


def step_checker():
    """The judge of scripts/jepsen and scripts/kills, on histories made by hand."""
    simple("checker of histories", [sys.executable, "-B", "tests/jepsen/test_checker.py"], 60)
    simple("standstills of histories", [sys.executable, "-B", "tests/kills/test_progress.py"], 60)


def step_wire():
    if not build("release"):
        return
    status, output, seconds = run("wire", ["tests/wire/run.sh", "build/release"], 900)
    good = re.findall(r"^ok (.*)$", output, re.M)
    bad = re.findall(r"^not ok (.*)$", output, re.M)
    RESULTS.add(passed=len(good), failed=len(bad))
    for text in bad:
        RESULTS.say(f"FAIL {text}")
    for text in good:
        RESULTS.say(f"ok   {text}")
    if status != 0 and not bad:
        RESULTS.one(False, "wire", seconds, output)


def venv():
    """A Python of our own under build/ with what tests/acceptance/requirements.txt says; None when it cannot be made."""
    folder = os.path.join(ROOT, "build", "venv")
    python = os.path.join(folder, "bin", "python")
    requirements = os.path.join(ROOT, "tests/acceptance/requirements.txt")
    with open(requirements, encoding="utf-8") as f:
        wanted = f.read()
    stamp = os.path.join(folder, "installed.txt")
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as f:
            if f.read() == wanted:
                return python
    if not simple("make venv", [sys.executable, "-m", "venv", "--clear", folder], 300) or \
            not simple("fill venv", [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", requirements], 600):
        return None
    with open(stamp, "w", encoding="utf-8") as f:
        f.write(wanted)
    return python


def acceptance(name, tests, env=None):
    """Runs pytest over them, once Kafka's tools and Python's packages are there."""
    python = venv()
    if python is None or not simple("install Kafka's tools", ["tests/tools/kafka", "setup"], 1200):
        return
    report = os.path.join(LOGS, f"{name}.xml".replace(" ", "-"))
    if os.path.exists(report):
        os.remove(report)
    command = [python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", f"--junit-xml={report}", *tests]
    status, output, seconds = run(name, command, 3000, env)
    count_junit(name, report, status, output, seconds)


# Minutes each: a step of their own, which has to be named (run.py long).
LONG = ["swap_three", "static_voters", "tools_of_three"]


def step_acceptance():
    if build("release") and build("release", ["before"]):  # the programs as the release before, for test_rolling_upgrade.py
        acceptance("acceptance", ["tests/acceptance", *(f"--ignore=tests/acceptance/test_{t}.py" for t in LONG)])


def step_long():
    if build("release"):
        acceptance("acceptance long", [f"tests/acceptance/test_{t}.py" for t in LONG])


COPIED = ["bad_input", "clients", "fetch_sessions", "kill", "large_fetch", "processes", "slow_readers"]


def step_copied():
    """What moves records, once more where nothing is shared: everything over ZeroMQ, as between hosts."""
    if build("release"):
        acceptance("acceptance copied", [f"tests/acceptance/test_{t}.py" for t in COPIED], {"KARST_BUS_SHARED": "false"})


def step_bench():
    """A few workloads for a fraction of a second each, on Karst alone: the harness measures, and the records come through."""
    simple("bench smoke", ["scripts/bench", "--quick", "--smoke"], 120)


def step_instructions():
    """Counted under valgrind, so a busy machine changes nothing: a request that has become dearer is a failure."""
    if build("release"):
        status, output, seconds = run("instructions", ["scripts/bench", "--instructions"], 300)
        RESULTS.one(status == 0, "instructions a request", seconds, output)
        for line in output.splitlines() if status == 0 else []:
            if " less: " in line:
                RESULTS.say(f"     {line}")


STEPS = {"format": step_format, "includes": step_includes, "compatibility": step_compatibility, "checker": step_checker, "unit": step_unit, "ctest": step_ctest,
         "sim": step_sim, "torture": step_torture, "torture-short": step_torture_short, "fuzz": step_fuzz, "fuzz-short": step_fuzz_short, "asan": step_asan, "tsan": step_tsan, "wire": step_wire,
         "acceptance": step_acceptance, "long": step_long, "copied": step_copied, "bench": step_bench, "instructions": step_instructions}
FULL = ["format", "includes", "compatibility", "checker", "unit", "ctest", "bench", "sim", "torture", "fuzz", "asan", "tsan", "wire", "instructions", "acceptance", "copied"]
FAST = ["format", "includes", "compatibility", "checker", "unit", "ctest", "bench", "sim", "torture-short", "fuzz-short"]


def main(arguments):
    if arguments == ["--list"]:
        print("\n".join(STEPS))
        return 0
    steps = FULL
    if arguments[:1] == ["fast"]:
        steps, arguments = FAST, arguments[1:]
    if arguments:
        steps = arguments
    unknown = [s for s in steps if s not in STEPS]
    if unknown:
        print(f"no step {', '.join(unknown)}; there are {', '.join(STEPS)}", file=sys.stderr)
        return 64
    os.makedirs(LOGS, exist_ok=True)
    for step in steps:
        try:
            STEPS[step]()
        except Exception as error:  # a broken step is a failed one; the others still run
            RESULTS.one(False, f"{step} itself", 0, repr(error))
    print(f"{RESULTS.passed} passed, {RESULTS.failed} failed, {RESULTS.skipped} skipped", flush=True)
    return 1 if RESULTS.failed or RESULTS.passed == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
