"""Stand-in for the Hugging Face Hub on loopback: the requests of ``huggingface_hub`` for uploads and downloads."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

_API = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(\w+)(?:/([^/]+))?)?/?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """Repository: the files of each commit, and the commit of each branch."""

    is_private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"0" * 40: {}})
    branches: dict[str, str] = field(default_factory=lambda: {"main": "0" * 40})

    def find(self, revision: str) -> str | None:
        """Return the commit of a branch or commit."""
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None


class StandInHub(ThreadingHTTPServer):
    """Server; ``requests`` has the method and path of each request."""

    daemon_threads = True

    def __init__(self, token: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.token = token
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []

    @property
    def address(self) -> str:
        """URL of the endpoint."""
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        """Return the files of a revision."""
        repository = self.repositories[kind, name]
        return repository.commits[repository.find(revision) or ""]


@contextmanager
def serve_hub(token: str) -> Iterator[StandInHub]:
    """Context manager that runs a server."""
    with StandInHub(token) as hub:
        thread = Thread(target=hub.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self._read()

    def do_HEAD(self) -> None:
        self._read()

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.requests.append(f"POST {path}")
        if path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            yaml.safe_load(text.split("---\n")[1])
            self._send_json({"errors": [], "warnings": []})
        elif self.headers["Authorization"] != f"Bearer {self.server.token}":
            self._refuse(401, "RepoNotFound")
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif match := _API.fullmatch(path):
            kind, name, action, revision = match.groups()
            repository = self.server.repositories.get((kind, name))
            if repository is None:
                self._refuse(404, "RepoNotFound")
            elif action == "preupload":
                files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                         for each in json.loads(body)["files"]]  # fmt: skip
                self._send_json({"files": files})
            elif action == "branch":
                is_new = unquote(revision) not in repository.branches
                repository.branches.setdefault(unquote(revision), repository.branches["main"])
                self._send_json({}, 200 if is_new else 409)
            else:
                self._commit(repository, f"{name}", unquote(revision), body)

    def _create(self, request: dict[str, Any]) -> None:
        name = f"{request['organization']}/{request['name']}"
        key = (request.get("type", "model"), name)
        is_new = key not in self.server.repositories
        is_private = bool(request.get("private")) or request.get("visibility") == "private"
        self.server.repositories.setdefault(key, Repository(is_private))
        self._send_json({"url": f"{self.server.address}/{name}", "name": name}, 200 if is_new else 409)

    def _commit(self, repository: Repository, name: str, branch: str, body: bytes) -> None:
        files = dict(repository.commits[repository.branches[branch]])
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            elif line["key"] == "deletedFile":
                del files[line["value"]["path"]]
        commit = hashlib.sha1(repr((sorted(files.items()), len(repository.commits))).encode()).hexdigest()
        repository.commits[commit] = files
        repository.branches[branch] = commit
        self._send_json({"commitUrl": f"{self.server.address}/{name}/commit/{commit}", "commitOid": commit})

    def _read(self) -> None:
        path = urlsplit(self.path).path
        self.server.requests.append(f"{self.command} {path}")
        is_api, match = path.startswith("/api/"), (_API if path.startswith("/api/") else _FILE).fullmatch(path)
        if match is None:
            self._refuse(404, "EntryNotFound")
            return
        if is_api:
            kind, name, action, revision = match.groups()
        else:
            kind, name, revision = "dataset" if match[1] else "model", match[2], match[3]
            action = ""
        repository = self.server.repositories.get((kind, name))
        if repository is None or (repository.is_private and self.headers["Authorization"] is None):
            self._refuse(404 if repository is None else 401, "RepoNotFound")
        elif (commit := repository.find(unquote(revision or "main"))) is None:
            self._refuse(404, "RevisionNotFound")
        elif not is_api:
            self._send_file(repository.commits[commit].get(unquote(match[4])), commit)
        elif action == "tree":
            self._send_json([
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in repository.commits[commit].items()
            ])  # fmt: skip
        else:
            siblings = [{"rfilename": file} for file in repository.commits[commit]]
            self._send_json({"_id": name, "id": name, "sha": commit, "private": repository.is_private, "tags": [],
                             "siblings": siblings})  # fmt: skip

    def _send_file(self, content: bytes | None, commit: str) -> None:
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        self._send(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit})

    def _send_json(self, content: object, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
