"""The container image without a container engine: what ``k8s/Dockerfile`` says, done on this machine.

`build` runs the Dockerfile's own instructions, with a directory in place of ``/``. `Image.command` runs what is then in
it as a pod would: as the image's user, with no capabilities, nothing to write to and no home. That confinement needs
root and Linux; without, the program runs as whoever runs the tests.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from tests.deploy.rendering import K8S, ROOT

DOCKERFILE = K8S / "Dockerfile"
IGNORED = K8S / "Dockerfile.dockerignore"
_PIP_PATIENCE_S = 600
_NO_PRIVILEGES = "--no-new-privs --bounding-set=-all --inh-caps=-all"
_PATH = re.compile(r"(?<![\w./-])/(?:opt|src)\b")
"""The absolute paths that the Dockerfile makes; all others are the base image's."""


@dataclass
class Stage:
    """One ``FROM`` and what follows it."""

    base: str
    name: str
    root: Path
    workdir: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    user: str = ""
    healthcheck: list[str] = field(default_factory=list)
    healthcheck_options: str = ""
    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    exposed: list[str] = field(default_factory=list)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile, one instruction and its arguments at a time."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def context() -> list[Path]:
    """The files of the repository that take part, relative to it: a list of exceptions from nothing at all."""
    everything, *rules = [line for line in IGNORED.read_text().splitlines() if line and not line.startswith("#")]
    assert everything == "*"
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    dropped = [rule.removeprefix("**/") for rule in rules if not rule.startswith("!")]
    found: list[Path] = []
    for name in kept:
        path = ROOT / name
        found += [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    relative = [path.relative_to(ROOT) for path in found]
    return [path for path in relative if not any(fnmatch(part, rule) for part in path.parts for rule in dropped)]


class Image:
    """The last stage, and how to run it."""

    def __init__(self, stage: Stage, shadow: Path) -> None:
        self.stage = stage
        self._shadow = shadow

    @property
    def confined(self) -> bool:
        """Will `command` run as it would in a pod?"""
        return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("unshare") is not None

    def environment(self, given: dict[str, str]) -> dict[str, str]:
        """All of it: the image's variables and the pod's. Nothing is inherited."""
        return {**self.stage.environment, "HOME": "/", **given}

    def command(self, arguments: list[str]) -> list[str]:
        """What to execute for ``arguments``; its process is the program's own, so that signals reach it."""
        program, *rest = arguments
        found = shutil.which(program, path=self.stage.environment["PATH"])
        assert found is not None, program
        if not self.confined:
            return [found, *rest]
        user, group = self.stage.user.split(":")
        # The image's Python is that of the tests; where it lies in a home directory, the image's user cannot see it.
        interpreter = Path(sys.base_prefix).resolve()
        closed = next((above for above in reversed(interpreter.parents) if not _open_to_others(above)), None)
        script = ["set -eu"]
        if closed is not None:
            stand_in = self._shadow / interpreter.relative_to(closed)
            stand_in.mkdir(parents=True, exist_ok=True)
            script += [
                f"mount --bind {shlex.quote(str(interpreter))} {shlex.quote(str(stand_in))}",
                f"mount --rbind {shlex.quote(str(self._shadow))} {shlex.quote(str(closed))}",
            ]
        script += [
            "for place in / /tmp /var /home /dev/shm; do",
            "  if mountpoint -q $place; then mount -o remount,bind,ro $place; fi",
            "done",
            f'exec setpriv --reuid {user} --regid {group} --clear-groups {_NO_PRIVILEGES} -- "$@"',
        ]
        unshare = ["/usr/bin/env", "unshare", "--mount", "--propagation", "private"]
        return [*unshare, "/bin/sh", "-c", "\n".join(script), "confine", found, *rest]


def _open_to_others(directory: Path) -> bool:
    return bool(directory.stat().st_mode & stat.S_IXOTH)


def build(directory: Path) -> Image:
    """Run the Dockerfile's instructions under ``directory``, which every user must be able to enter."""
    # The base image has `python`.
    tools = directory / "tools"
    tools.mkdir()
    (tools / "python").symlink_to(sys.executable)
    stages: list[Stage] = []
    for word, rest in instructions():
        if word == "ARG":
            assert not stages, "one of all stages"
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name, directory / f"stage-{len(stages)}"))
            stages[-1].root.mkdir()
        else:
            _follow(word, rest, stages, tools)
    shadow = directory / "shadow"
    shadow.mkdir()
    return Image(stages[-1], shadow)


def _follow(word: str, rest: str, stages: list[Stage], tools: Path) -> None:
    stage = stages[-1]
    match word:
        case "WORKDIR":
            stage.workdir = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "ENV":
            pairs = dict(pair.split("=", 1) for pair in shlex.split(rest))
            stage.environment |= {name: _moved(value, stage.root) for name, value in pairs.items()}
        case "COPY":
            _copy(rest, stages)
        case "RUN":
            _run(rest, stage, tools)
        case "USER":
            stage.user = rest
        case "EXPOSE":
            stage.exposed.append(rest)
        case "HEALTHCHECK":
            options, _, command = rest.partition("CMD ")
            stage.healthcheck, stage.healthcheck_options = json.loads(command), options
        case "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        case "CMD":
            stage.cmd = json.loads(rest)
        case _:
            raise AssertionError(f"this file does not know {word}; teach it")


def _moved(text: str, root: Path) -> str:
    return _PATH.sub(lambda found: f"{root}{found[0]}", text)


def _copy(rest: str, stages: list[Stage]) -> None:
    stage = stages[-1]
    *sources, target = rest.split()
    if sources[0].startswith("--from="):
        other = next(one for one in stages if one.name == sources[0].removeprefix("--from="))
        [path] = sources[1:]
        made = stage.root / target.lstrip("/")
        made.parent.mkdir(parents=True, exist_ok=True)
        (other.root / path.lstrip("/")).rename(made)  # nothing else needs it, and to copy it takes long
        # In an image both are the same path; here, scripts name the interpreter of the stage they were made in.
        for script in (made / "bin").iterdir():
            if script.is_file() and not script.is_symlink():
                script.write_text(script.read_text().replace(str(other.root), str(stage.root)))
        return
    here = stage.root / stage.workdir.lstrip("/")
    for source in sources:
        files = [path for path in context() if path.is_relative_to(source)]
        assert files, f"COPY {source}: the ignore file leaves nothing of it"
        for file in files:
            inside = file.relative_to(source)
            destination = here / target / (file.name if target in (".", "./") and inside == Path() else inside)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, destination)


def _run(script: str, stage: Stage, tools: Path) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("DYNEIN_", "PYTHON"))}
    path = os.pathsep.join([str(tools), inherited.get("PATH", os.defpath)])
    done = subprocess.run(
        ["/bin/sh", "-c", _moved(script, stage.root)],
        cwd=stage.root / stage.workdir.lstrip("/"),
        env={**inherited, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **stage.environment, "PATH": path},
        capture_output=True, text=True, timeout=_PIP_PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"RUN {script}\n{done.stdout}\n{done.stderr}"
