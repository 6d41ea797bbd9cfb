"""The engine process: cwltool as a library, loaded once and kept warm.

The agent starts this module as a process of its own, with an environment that holds nothing but a search path, a home and
a folder for temporary files: other people's CWL runs here, and JavaScript expressions can read whatever this process can
read. Requests and responses are JSON, one object a line, on a socket whose number is the one argument; standard output and
error belong to the tools.

A request is ``{"job", "workflow": {"directory", "main", "process"}, "inputs", "directory"}``. The engine makes the job's
directory and in it ``log`` (what the tools and the engine write), ``out*`` (outputs), ``tmp`` and ``in``. A response is
``{"job", "outcome", "exit_code", "outputs", "error", "started", "finished", "usage", "rss_bytes"}``. With ``"describe": true``
nothing is run, and the outputs are what `stoa_executor.description.describe` says of the workflow.
"""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cwltool.process
import cwltool.utils
import psutil
from cwl_utils.sandboxjs import NodeJSEngine
from cwltool.command_line_tool import CommandLineTool
from cwltool.context import LoadingContext, RuntimeContext
from cwltool.errors import UnsupportedRequirement, WorkflowException
from cwltool.executors import SingleJobExecutor
from cwltool.job import CommandLineJob, JobBase
from cwltool.load_tool import load_tool
from cwltool.process import shortname
from cwltool.workflow import default_make_tool
from schema_salad.exceptions import ValidationException
from schema_salad.fetcher import DefaultFetcher

from stoa_executor.description import describe
from stoa_executor.domain import (
    ENGINE_MARK,
    InfiniteValueError,
    bool_for_number,
    clean_message,
    failure_sentence,
    plain_value,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cwltool.process import Process
    from ruamel.yaml.comments import CommentedMap

__all__ = ["Engine", "main"]

_PR_SET_CHILD_SUBREAPER = 36
_CACHED_WORKFLOWS = 32
_TAIL_BYTES = 16384
_FIRST_SAMPLE_S = 0.005
_LAST_SAMPLE_S = 0.1
_SHA1 = re.compile(r"[0-9a-f]{40}")
_NOISE = re.compile(
    r"\[(?:job|step|workflow)[^\]]*\] (?:completed|exited with status|was terminated by signal|start|starting)"
)


class _OutsideError(ValidationException):
    """The workflow asks for a document outside its own bundle."""


class _BundleFetcher(DefaultFetcher):
    """Reads documents of one workflow version and nothing else: the version's digest has to cover all it runs."""

    root = ""

    def _check(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in {"http", "https"}:
            msg = f"The workflow refers to {url}; add that document to the workflow's files, because nothing is loaded from the network."
            raise _OutsideError(msg)
        if parts.scheme == "file":
            path = os.path.realpath(urllib.parse.unquote(parts.path))
            if path != self.root and not path.startswith(self.root + os.sep):
                msg = f"The workflow refers to {os.path.basename(path)} outside its own files; add it to the workflow's files."
                raise _OutsideError(msg)

    def fetch_text(self, url: str, content_types: list[str] | None = None) -> str:
        """Read a document of the bundle."""
        self._check(url)
        return super().fetch_text(url, content_types)

    def check_exists(self, url: str) -> bool:
        """Tell whether a document of the bundle exists."""
        if urllib.parse.urlsplit(url).scheme in {"http", "https"}:
            return False
        self._check(url)
        return super().check_exists(url)


class _Account:
    """What one job used and how its tools ended."""

    def __init__(self) -> None:
        self.cpu_s = 0.0
        self.max_rss = 0
        self.last_code: int | None = None
        self.exit_code: int | None = None
        self.several_steps = False
        self.failed_tool: str | None = None
        self.may_pass = False
        self.failed_said = ""
        self.messages: list[str] = []

    def begin_tool(self) -> None:
        self.last_code = None


_account = _Account()


class _LogHandler(logging.Handler):
    """Writes the engine's own messages into the job's log, marked, and keeps them for the sentence."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        message = record.getMessage()
        if not _NOISE.match(message) and record.levelno >= logging.WARNING:
            _account.messages.append(re.sub(r"^\[job [^\]]*\] Job error:\n", "", message))
        with suppress(OSError):
            os.write(2, "".join(f"{ENGINE_MARK}{line}\n" for line in message.splitlines()).encode(errors="replace"))


class _Job(CommandLineJob):
    """A tool's process, waited for without a thread, so that its use of processor and memory is known."""

    def process_monitor(self, sproc: subprocess.Popen[str]) -> None:
        """Wait for the end of the tool and add up what it used."""
        try:
            handle = os.pidfd_open(sproc.pid)
        except OSError:
            handle = -1
        try:
            if handle >= 0:
                self._watch(sproc.pid, handle)
            _, status, used = os.wait4(sproc.pid, 0)
        except ChildProcessError:
            # The timer of a time limit was quicker to collect it.
            sproc.wait()
        else:
            sproc.returncode = os.waitstatus_to_exitcode(status)
            _account.cpu_s += used.ru_utime + used.ru_stime
            peak = used.ru_maxrss * 1024
            # A child begins in the engine's memory, and the kernel counts that: only what lies above says anything.
            if peak > _own_peak_memory():
                _account.max_rss = max(_account.max_rss, peak)
        finally:
            if handle >= 0:
                os.close(handle)
        _account.last_code = sproc.returncode

    @staticmethod
    def _watch(pid: int, handle: int) -> None:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        pause = _FIRST_SAMPLE_S
        while not poll.poll(pause * 1000):
            _account.max_rss = max(_account.max_rss, _peak_memory(pid))
            pause = min(2 * pause, _LAST_SAMPLE_S)

    def _execute(
        self,
        runtime: list[str],
        env: Any,
        runtimeContext: RuntimeContext,  # noqa: N803 - the name belongs to cwltool
        monitor_function: Any = None,
    ) -> None:
        _account.begin_tool()
        _forget_own_peak_memory()
        super()._execute(runtime, env, runtimeContext, monitor_function)
        code = _account.last_code
        if code is None or _account.failed_tool is not None:
            return
        _account.exit_code = code
        if code not in self.successCodes and (
            code != 0 or code in (*self.temporaryFailCodes, *self.permanentFailCodes)
        ):
            _account.failed_tool = self.name
            # cwltool says permanentFail where the outputs are missing, too, as they mostly are. And it never sends this
            # signal: an operator did, or the kernel that was short of memory.
            _account.may_pass = code in self.temporaryFailCodes or code == -signal.SIGKILL
            if self.stderr:
                _account.failed_said = _tail(os.path.join(self.outdir, self.stderr))


class _Tool(CommandLineTool):
    """A command line tool that runs without containers and says so in plain words."""

    def make_job_runner(self, runtimeContext: RuntimeContext) -> type[JobBase]:  # noqa: ARG002, N803 - cwltool's signature
        """Choose how the tool is run."""
        requirement, required = self.get_requirement("DockerRequirement")
        if requirement is not None and required:
            image = requirement.get("dockerPull") or requirement.get("dockerImageId") or "an image"
            msg = f"The tool requires a container ({image}), and this executor has no container engine configured."
            raise UnsupportedRequirement(msg)
        return _Job


def _make_tool(document: CommentedMap, loading: LoadingContext) -> Process:
    if document.get("class") == "CommandLineTool":
        _name_streams(document)
        return _Tool(document, loading)
    return default_make_tool(document, loading)


def _name_streams(document: CommentedMap) -> None:
    """Give captured streams without a file name a lasting one: cwltool's hashes the place where the document lies."""
    for stream in ("stdout", "stderr"):
        name = document.get(stream)
        if isinstance(name, str) and _SHA1.fullmatch(name):
            document[stream] = f"{stream}.txt"
            for output in document.get("outputs", []):
                binding = output.get("outputBinding")
                if isinstance(binding, dict) and binding.get("glob") == name:
                    binding["glob"] = f"{stream}.txt"


class _Workflow:
    """A loaded process and the names it takes and gives."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.inputs = {shortname(port["id"]): port["type"] for port in process.tool["inputs"]}
        self.outputs = {shortname(port["id"]): port["type"] for port in process.tool["outputs"]}


class Engine:
    """Runs CWL processes one after the other, keeping loaded workflows.

    Notes
    -----
    Steps and scatters of one workflow run one after the other; rows are what runs in parallel. ``DockerRequirement`` under
    ``hints`` is ignored, under ``requirements`` it fails the job.
    """

    def __init__(self) -> None:
        # The first document loads the schemas of CWL, which takes longer than hundreds of rows.
        document = {
            "id": "file:///warm.cwl",
            "cwlVersion": "v1.2",
            "class": "CommandLineTool",
            "baseCommand": "true",
            "inputs": [],
            "outputs": [],
        }
        load_tool(cast(Any, document), LoadingContext({"construct_tool_object": default_make_tool, "doc_cache": False}))
        gc.freeze()
        self._workflows: OrderedDict[tuple[str, str, str | None], _Workflow] = OrderedDict()

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run one job to its end.

        Parameters
        ----------
        request
            See the module's description.

        Returns
        -------
        dict
            The response; whatever goes wrong is an outcome with a sentence, not an exception.
        """
        global _account  # noqa: PLW0603 - the engine runs one job at a time, and cwltool offers no other way to its hooks
        _account = account = _Account()
        directory = request["directory"]
        started = time.time()
        clock = time.monotonic()
        outputs: Any = None
        try:
            os.makedirs(directory, exist_ok=True)
            log = os.open(os.path.join(directory, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            outcome, outputs, error = self._execute(request, directory)
        except (UnsupportedRequirement, InfiniteValueError) as problem:
            outcome, error = "permanentFail", str(problem)
        except (WorkflowException, ValidationException) as problem:
            outcome, error = "permanentFail", clean_message(str(problem))
        except OSError as problem:
            outcome, error = (
                "temporaryFail",
                f"The engine could not work in its directory: {problem.strerror or problem}.",
            )
        except Exception as problem:  # a defect here must not end the process that the agent waits for
            logging.getLogger("cwltool").warning("unexpected error", exc_info=True)
            outcome, error = "permanentFail", clean_message(f"The engine failed: {type(problem).__name__}: {problem}")
        finally:
            ended = _end_leftovers()
            if ended:
                with suppress(OSError):
                    os.write(2, f"{ENGINE_MARK}ended {ended} processes that the tool left running\n".encode())
            cwltool.process._names.clear()  # noqa: SLF001 - else each row searches through the names of all earlier ones
            cwltool.utils.processes_to_kill.clear()
        if outcome != "success" and error is None:
            said = account.failed_said or _tail(os.path.join(directory, "log"))
            error = failure_sentence(
                exit_code=account.exit_code,
                said=said,
                messages=account.messages,
                step=account.failed_tool if account.several_steps else None,
            )
        if error is not None:
            error = _without_places(error, request)
        return {
            "job": request["job"],
            "outcome": outcome,
            "exit_code": account.exit_code,
            "outputs": outputs if outcome == "success" else None,
            "error": error,
            "started": started,
            "finished": time.time(),
            "usage": {
                "wall_s": time.monotonic() - clock,
                "cpu_s": account.cpu_s,
                "max_rss_bytes": account.max_rss,
            },
            "rss_bytes": _own_memory(),
        }

    def _execute(self, request: dict[str, Any], directory: str) -> tuple[str, dict[str, Any] | None, str | None]:
        place = request["workflow"]
        workflow = self._load(place["directory"], place["main"], place.get("process"))
        if request.get("describe"):
            return "success", describe(workflow.process), None
        inputs = request["inputs"]
        _check_inputs(workflow, inputs)
        single = workflow.process.tool["class"] == "CommandLineTool"
        _account.several_steps = not single
        context = RuntimeContext(
            {
                "basedir": directory,
                "tmpdir_prefix": os.path.join(directory, "tmp"),
                "tmp_outdir_prefix": os.path.join(directory, "out"),
                "use_container": False,
                "no_match_user": True,
                "compute_checksum": False,
                "move_outputs": "leave",
                "rm_tmpdir": False,
                "preserve_environment": ["LANG"],
            }
        )
        if single:
            # One tool needs no directories with names of their own: that saves two of them per row.
            context.tmpdir = os.path.join(directory, "tmp")
            context.stagedir = os.path.join(directory, "in")
        outputs, status = SingleJobExecutor().execute(workflow.process, inputs, context)
        if status != "success":
            return ("temporaryFail" if status == "temporaryFail" or _account.may_pass else "permanentFail"), None, None
        result = {name: plain_value(value, name) for name, value in (outputs or {}).items()}
        for name, value in result.items():
            if bool_for_number(workflow.outputs.get(name), value):
                return "permanentFail", None, f"Output '{name}' is a truth value where its type wants a number."
        return "success", result, None

    def _load(self, directory: str, main: str, process: str | None) -> _Workflow:
        key = (directory, main, process)
        known = self._workflows.get(key)
        if known is not None:
            self._workflows.move_to_end(key)
            return known
        root = os.path.realpath(directory)
        fetcher = type("_Fetcher", (_BundleFetcher,), {"root": root})
        uri = Path(root, main).as_uri() + (f"#{process}" if process else "")
        loading = LoadingContext(
            {
                "construct_tool_object": _make_tool,
                "fetcher_constructor": fetcher,
                "doc_cache": False,
                "disable_js_validation": True,
                "relax_path_checks": True,
            }
        )
        loaded = load_tool(uri, loading)
        if "cwl:defaults" in loaded.metadata:
            msg = "The workflow carries 'cwl:defaults', which would leak from one row into the next."
            raise WorkflowException(msg)
        workflow = _Workflow(loaded)
        self._workflows[key] = workflow
        # What was loaded stays: the garbage collector need not look through it for every row.
        gc.freeze()
        while len(self._workflows) > _CACHED_WORKFLOWS:
            self._workflows.popitem(last=False)
        return workflow


def _without_places(error: str, request: dict[str, Any]) -> str:
    """Leave directories out of a sentence that were made for one job and mean nothing to people."""
    for directory in (request["workflow"]["directory"], request["directory"]):
        for written in (Path(directory).as_uri(), directory, os.path.relpath(directory)):
            error = error.replace(f"{written}/", "")
    return error


def _check_inputs(workflow: _Workflow, inputs: dict[str, Any]) -> None:
    for name, value in inputs.items():
        if name not in workflow.inputs:
            if ":" in name:
                msg = (
                    f"The input object holds '{name}'; requirements and overrides belong in the workflow, not in a row."
                )
            else:
                msg = f"The workflow has no input '{name}'."
            raise UnsupportedRequirement(msg)
        if bool_for_number(workflow.inputs[name], value):
            msg = f"Input '{name}' is a truth value where its type wants a number."
            raise UnsupportedRequirement(msg)


# --- processes -------------------------------------------------------------------------------------------------------


def _children(pid: int) -> list[int]:
    """List the direct children of a process, those adopted from dead descendants included."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:
                found.extend(int(word) for word in file.read().split())
    except (FileNotFoundError, ProcessLookupError):
        with suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
    return found


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = _children(waiting.pop())
        found.extend(children)
        waiting.extend(children)
    return found


def _peak_memory(pid: int) -> int:
    """Add up what a process and its descendants hold now; of the process itself take its peak."""
    total = 0
    for number in [pid, *_descendants(pid)]:
        with suppress(OSError), open(f"/proc/{number}/status", "rb") as file:
            match = re.search(rb"VmHWM:\s+(\d+) kB" if number == pid else rb"VmRSS:\s+(\d+) kB", file.read())
            total += int(match[1]) * 1024 if match else 0
    return total


def _own_peak_memory() -> int:
    """Give the most that this process held since its peak was last forgotten."""
    try:
        with open("/proc/self/status", "rb") as file:
            match = re.search(rb"VmHWM:\s+(\d+) kB", file.read())
    except OSError:
        match = None
    return int(match[1]) * 1024 if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _forget_own_peak_memory() -> None:
    """Start the peak anew, so that what an earlier row needed for itself does not hide what the next row's tool uses."""
    with suppress(OSError), open("/proc/self/clear_refs", "wb", buffering=0) as file:
        file.write(b"5")


def _own_memory() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return psutil.Process().memory_info().rss


def _expression_engines() -> set[int]:
    """Give the warm Node.js processes for expressions: the only children that may outlive a job."""
    return {process.pid for process in getattr(NodeJSEngine.localdata, "procs", {}).values()}


def _end_leftovers() -> int:
    """End what the tool left running, so that nothing writes to files after they were digested."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        # Nearly always: there is no child at all, and one call says so.
        return 0
    keep = _expression_engines()
    ended: set[int] = set()
    for _ in range(200):
        left = [pid for pid in _children(os.getpid()) if pid not in keep]
        if not left:
            break
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                _, status = os.waitpid(pid, 0)
                if os.WIFSIGNALED(status):
                    ended.add(pid)
    return len(ended)


def _end_with_the_agent(channel: socket.socket) -> None:
    """End this process and all it started once the agent is gone, even if the agent was killed in the middle of a job."""
    poll = select.poll()
    poll.register(channel, select.POLLRDHUP)
    poll.poll()
    for pid in _descendants(os.getpid()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os.killpg(0, signal.SIGKILL)


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _configure_logging() -> None:
    handler = _LogHandler()
    for name in ("cwltool", "salad", "cwl_utils", "rdflib.term"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve requests until the agent closes the socket.

    Parameters
    ----------
    arguments
        The number of the socket's file descriptor.

    Returns
    -------
    int
        The exit status.
    """
    number = int((sys.argv[1:] if arguments is None else arguments)[0])
    with suppress(OSError, AttributeError):
        # What a tool leaves behind becomes a child of this process, and so can be found and ended.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    _configure_logging()
    with socket.socket(fileno=number) as channel:
        channel.set_inheritable(False)
        threading.Thread(target=_end_with_the_agent, args=(channel,), daemon=True).start()
        reader = channel.makefile("rb")
        engine = Engine()
        _send(channel, {"ready": os.getpid()})
        own_errors = os.dup(2)
        for line in reader:
            request = json.loads(line)
            response = engine.run(cast("dict[str, Any]", request))
            os.dup2(own_errors, 1)
            os.dup2(own_errors, 2)
            _send(channel, response)
    return 0


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.sendall(json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n")


if __name__ == "__main__":
    sys.exit(main())
