"""The examples that the service publishes, run as they are against the emulator over TCP.

Only the host is another one: what works here works with the documented API, and the other way
round.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.served import emulator_process, environment

SERVICE = "https://api.eggapi.ai"

POLLING_LOOP = '''\
import requests
import time

def wait_for_task(task_id, api_key, max_wait=300):
    """Wait for an async task to complete."""
    url = f"https://api.eggapi.ai/v1/tasks/{task_id}"
    headers = {"Authorization": f"Bearer {api_key}"}

    start_time = time.time()
    poll_interval = 5

    while time.time() - start_time < max_wait:
        response = requests.get(url, headers=headers)
        task = response.json()["data"]

        if task["status"] == "completed":
            return task

        if task["status"] == "failed":
            raise Exception(f"Task failed: {task['error']}")

        print(f"Status: {task['status']}...")
        time.sleep(poll_interval)

    raise Exception("Task timed out")
'''
USAGE = """
# Usage
task = wait_for_task("gen_abc123", "YOUR_API_KEY")
print(f"Image URL: {task['output']['url']}")
"""

SUBMIT = """\
curl -X POST https://api.eggapi.ai/v1/generate \\
  -H "Authorization: Bearer YOUR_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "nanobanana-pro",
    "prompt": "A cat playing with a ball of yarn",
    "aspect_ratio": "16:9",
    "webhook_url": "https://webhook.site/your-webhook-id"
  }'"""
POLL = """\
curl https://api.eggapi.ai/v1/tasks/gen_abc123def456 \\
  -H "Authorization: Bearer YOUR_API_KEY\""""
LIST = """\
curl "https://api.eggapi.ai/v1/tasks?page=1&per_page=20" \\
  -H "Authorization: Bearer YOUR_API_KEY\""""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An emulator whose tasks end before the loop's second look, 5 s after its first."""
    with emulator_process("--speed", "40", cwd=tmp_path_factory.mktemp("emulator")) as url:
        yield url


def curl(command: str, url: str) -> Any:
    """The `data` that a published curl command gets from *url*."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed on this machine")
    quiet = command.replace("curl ", "curl -sS ", 1).replace(SERVICE, url)
    done = subprocess.run(
        ["sh", "-c", quiet], capture_output=True, text=True, check=True, env=environment()
    )
    answer = json.loads(done.stdout)
    assert answer["error"] is None
    return answer["data"]


def waiting(task_id: str, url: str, folder: Path) -> subprocess.Popen[str]:
    """The published polling loop and its published use, under way for this task."""
    script = folder / f"{task_id}.py"
    example = (POLLING_LOOP + USAGE).replace(SERVICE, url)
    script.write_text(example.replace("gen_abc123", task_id), "utf-8")
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def test_the_polling_loop_gets_its_picture_or_the_reason(service: str, tmp_path: Path) -> None:
    """The page's synchronous loop prints where the picture is, or raises the service's words."""
    made = curl(SUBMIT, service)["id"]
    failed = curl(SUBMIT.replace("A cat", "A forbidden cat"), service)["id"]
    with waiting(made, service, tmp_path) as good, waiting(failed, service, tmp_path) as bad:
        printed, problems = good.communicate()
        _, reason = bad.communicate()
    assert good.returncode == 0, problems
    *polls, last = printed.splitlines()
    assert set(polls) <= {"Status: pending...", "Status: processing..."}
    assert last == f"Image URL: {service}/outputs/{made.removeprefix('gen_')}-1.png"
    assert bad.returncode == 1
    assert "Task failed: Content moderation: prompt contains prohibited content" in reason


def test_curl_submits_polls_and_lists(service: str) -> None:
    """The page's three curl commands see one task become what the page shows."""
    task = curl(SUBMIT, service)
    assert task.keys() >= {"id", "status", "model", "type", "cost", "created_at"}
    assert (task["status"], task["model"], task["cost"]) == ("pending", "nanobanana-pro", "$0.00")
    polled = curl(POLL.replace("gen_abc123def456", task["id"]), service)
    assert polled["id"] == task["id"]
    listed = curl(LIST, service)
    assert task["id"] in [item["id"] for item in listed["items"]]
    assert listed["pagination"]["per_page"] == 20
