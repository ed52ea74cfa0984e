"""The bots in `examples/`, each with its framework's own objects, against the emulator.

Nothing leaves the process, and time does not pass: what the platform would be sent is written down.
They need the extra `examples`; without it every test here says that it is skipped.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock
from urllib.parse import urlencode

import anyio
import attrs
import pytest

from eggapi_async import AsyncEggClient
from eggapi_async.emulator import EggEmulator, Fault
from eggapi_async.testing import connect, virtual_clock

EXAMPLES = Path(__file__).parent.parent / "examples"
ME, CHAT = 7, 42

Said = tuple[float, str, str, bytes]
"""When, what was done, the text, and the picture that came with it."""


@attrs.define
class Stage:
    """A bot at work, and what its platform was told."""

    emulator: EggEmulator
    ask: Callable[..., Any] = attrs.field(init=False)
    """Let a user say `/imagine PROMPT`, and wait until the bot has done with it."""
    said: list[Said] = attrs.field(factory=list)
    module: ModuleType = attrs.field(init=False)

    def note(self, act: str, text: str | None = "", picture: bytes = b"") -> None:
        self.said.append((anyio.current_time(), act, text or "", picture))

    @property
    def texts(self) -> list[str]:
        return [text for _, _, text, _ in self.said]

    @property
    def pictures(self) -> list[bytes]:
        return [picture for *_, picture in self.said if picture]

    @property
    def kept(self) -> dict[str, Any]:
        """What a restart would find."""
        found: dict[str, Any] = json.loads(self.module.OPEN.read_text())
        return found


def load(name: str, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module of its own, whose clients talk to the emulator."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "AsyncEggClient", partial(connect, stage.emulator))
    stage.module = module
    return module


# --- discord.py ------------------------------------------------------------------------------


@asynccontextmanager
async def on_discord(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The client is its own, the interaction a mock of discord's class."""
    discord = pytest.importorskip("discord", reason="needs the extra 'examples'")
    module = load("discord_bot", stage, monkeypatch)
    bot = module.EggBot()

    def send(act: str) -> Callable[..., Any]:
        async def note(
            content: str = "", attachments: Any = (), file: Any = None, **_: Any
        ) -> None:
            files = [*attachments, *([file] if file else [])]
            stage.note(act, content, b"".join(each.fp.read() for each in files))

        return note

    async def ask(prompt: str, user: int = ME) -> None:
        interaction = mock.AsyncMock(spec=discord.Interaction)
        interaction.client, interaction.channel_id, interaction.user.id = bot, CHAT, user
        interaction.edit_original_response = send("edit")
        interaction.response.defer = lambda **_: send("acknowledge")()
        await module.imagine.callback(interaction, prompt)

    channel = mock.AsyncMock(spec=discord.TextChannel)
    channel.send = send("send")
    monkeypatch.setattr(bot, "fetch_channel", mock.AsyncMock(return_value=channel))
    monkeypatch.setattr(bot.tree, "sync", mock.AsyncMock())
    stage.ask = ask
    await bot.setup_hook()
    yield
    await bot.close()


# --- aiogram ---------------------------------------------------------------------------------


@asynccontextmanager
async def on_aiogram(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Dispatcher, bot and updates are aiogram's, the session is ours."""
    pytest.importorskip("aiogram", reason="needs the extra 'examples'")
    from aiogram import Bot, types
    from aiogram.client.session.base import BaseSession

    class Session(BaseSession):
        async def make_request(self, bot: Any, method: Any, timeout: int | None = None) -> Any:
            name = type(method).__name__
            photo = getattr(method, "photo", None)
            stage.note(name, getattr(method, "text", ""), photo.data if photo else b"")
            if name == "DeleteMessage":
                return True
            answer = {"message_id": 2, "date": 0, "chat": {"id": CHAT, "type": "private"}}
            return types.Message.model_validate(answer, context={"bot": bot})

        async def close(self) -> None:
            pass

        async def stream_content(self, *_: Any, **__: Any) -> Any:
            raise AssertionError("nothing is fetched from Telegram")
            yield b""

    bot, dispatcher = (
        Bot("1:token", session=Session()),
        load("telegram_aiogram", stage, monkeypatch).make(),
    )

    async def ask(prompt: str, user: int = ME) -> None:
        update = types.Update.model_validate(
            {"update_id": 1, "message": telegram_message(prompt, user)}
        )
        await dispatcher.feed_update(bot, update)

    stage.ask = ask
    given = {"bot": bot, "dispatcher": dispatcher, **dispatcher.workflow_data}
    await dispatcher.emit_startup(**given)
    yield
    await dispatcher.emit_shutdown(**{**given, **dispatcher.workflow_data})
    # aiogram keeps updates until the interpreter ends. Their dates have pydantic-core's time zone,
    # which crashes where it is freed after that module is gone.
    vars(types.Update)["event_type"].fget.cache_clear()


def telegram_message(prompt: str, user: int) -> dict[str, Any]:
    """A command as Telegram sends it."""
    return {
        "message_id": 1,
        "date": 0,
        "chat": {"id": CHAT, "type": "private"},
        "from": {"id": user, "is_bot": False, "first_name": "A"},
        "text": f"/imagine {prompt}",
        "entities": [{"type": "bot_command", "offset": 0, "length": 8}],
    }


# --- python-telegram-bot ---------------------------------------------------------------------


@asynccontextmanager
async def on_ptb(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Application, updates and bot are its own, the HTTP below is ours."""
    pytest.importorskip("telegram", reason="needs the extra 'examples'")
    from telegram import Update
    from telegram.ext import Application
    from telegram.request import BaseRequest

    class Offline(BaseRequest):
        read_timeout = 5.0

        async def initialize(self) -> None:
            pass

        async def shutdown(self) -> None:
            pass

        async def do_request(
            self, url: str, method: str, request_data: Any = None, *_: Any, **__: Any
        ) -> tuple[int, bytes]:
            name = url.rpartition("/")[2]
            told = request_data.parameters if request_data else {}
            parts = (request_data.multipart_data or {}) if request_data else {}
            if name != "getMe":
                picture = b"".join(part[1] for part in parts.values())
                stage.note(name, told.get("text", ""), picture)
            answers: dict[str, Any] = {
                "getMe": {"id": 1, "is_bot": True, "first_name": "Egg", "username": "eggbot"},
                "deleteMessage": True,
            }
            said = {"message_id": 2, "date": 0, "chat": {"id": CHAT, "type": "private"}}
            return 200, json.dumps({"ok": True, "result": answers.get(name, said)}).encode()

    module = load("telegram_ptb", stage, monkeypatch)
    builder = (
        Application.builder().token("1:token").request(Offline()).get_updates_request(Offline())
    )
    application = module.make(builder)

    async def ask(prompt: str, user: int = ME) -> None:
        update = {"update_id": 1, "message": telegram_message(prompt, user)}
        await application.process_update(Update.de_json(update, application.bot))

    stage.ask = ask
    async with application:
        await module.start(application)
        yield
        await module.stop(application)


# --- slack-bolt ------------------------------------------------------------------------------


@asynccontextmanager
async def on_slack(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """App, requests and signatures are its own; the web client stops short of HTTP."""
    pytest.importorskip("slack_bolt", reason="needs the extra 'examples'")
    from slack_bolt.async_app import AsyncBoltRequest
    from slack_sdk.signature import SignatureVerifier
    from slack_sdk.web.async_client import AsyncWebClient
    from slack_sdk.web.async_slack_response import AsyncSlackResponse

    async def api_call(client: Any, api_method: str, **request: Any) -> Any:
        told = {**(request.get("params") or {}), **(request.get("json") or {})}
        told |= request.get("data") or {}
        if api_method != "auth.test":
            stage.note(api_method, told.get("text", ""))
        data = {
            "ok": True,
            "ts": "1.0",
            "user_id": "U1",
            "bot_id": "B1",
            "team_id": "T1",
            "file_id": "F1",
            "upload_url": "https://files.test/1",
            "files": [{"id": "F1"}],
        }
        return AsyncSlackResponse(
            client=client,
            http_verb="POST",
            api_url=api_method,
            req_args={},
            data=data,
            headers={},
            status_code=200,
        )

    async def upload(client: Any, *, data: bytes, **_: Any) -> Any:
        stage.note("upload", "", data)
        return mock.Mock(status=200)

    monkeypatch.setattr(AsyncWebClient, "api_call", api_call)
    monkeypatch.setattr(AsyncWebClient, "_upload_file", upload)
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-token")
    monkeypatch.setenv("SLACK_SIGNING_SECRET", "secret")
    module = load("slack_bot", stage, monkeypatch)
    egg: AsyncEggClient = module.AsyncEggClient()
    app = module.make(egg)

    async def ask(prompt: str, user: int = ME) -> None:
        command = {"command": "/imagine", "text": prompt, "user_id": f"U{user}", "team_id": "T1"}
        body = urlencode({**command, "channel_id": str(CHAT), "token": "t"})
        stamp = str(int(time.time()))
        signature = SignatureVerifier("secret").generate_signature(timestamp=stamp, body=body)
        headers: dict[str, Any] = {
            "content-type": "application/x-www-form-urlencoded",
            "x-slack-signature": signature or "",
            "x-slack-request-timestamp": stamp,
        }
        others = asyncio.all_tasks()
        answer = await app.async_dispatch(AsyncBoltRequest(body=body, headers=headers))
        assert answer.status == 200, answer.body
        await asyncio.gather(*filter(is_listener, asyncio.all_tasks() - others))

    def is_listener(task: asyncio.Task[Any]) -> bool:
        """It goes on after its acknowledgement was answered."""
        return "slack_bolt" in getattr(task.get_coro(), "cr_code").co_filename  # noqa: B009

    stage.ask = ask
    late = [
        asyncio.create_task(module.deliver(app.client, egg, *each))
        for each in module.kept().items()
    ]
    yield
    await asyncio.gather(*late)
    await egg.aclose(drain=10)


# --- what all of them do ---------------------------------------------------------------------

PLATFORMS = {
    "discord_bot": on_discord,
    "telegram_aiogram": on_aiogram,
    "telegram_ptb": on_ptb,
    "slack_bot": on_slack,
}
each_platform = pytest.mark.parametrize("platform", PLATFORMS)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """An emulator, and a folder of its own for what the bots keep."""
    monkeypatch.chdir(tmp_path)
    return Stage(EggEmulator(clock=virtual_clock, seed=2))


@each_platform
async def test_a_picture_is_sent_with_its_progress(
    platform: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledged at once, edited no oftener than allowed, sent as bytes, bought once."""
    async with PLATFORMS[platform](stage, monkeypatch):
        start = anyio.current_time()
        await stage.ask("an egg")
        assert stage.said[0][0] == start
        assert any(text.startswith("pending, 0 s") for text in stage.texts)
        [picture] = stage.pictures
        assert picture.startswith(b"\x89PNG")
        progress = [at for at, _, text, _ in stage.said if text.endswith(" s")]
        assert all(later - earlier >= 2 for earlier, later in pairwise(progress[:-1]))
        assert len(stage.emulator.accepted) == 1
        assert stage.kept == {}


@each_platform
async def test_a_refusal_is_told_kindly(
    platform: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In our words, not the service's; the task is not kept."""
    async with PLATFORMS[platform](stage, monkeypatch):
        await stage.ask("a forbidden egg")
        assert "content filter" in stage.texts[-1]
        assert not any("prohibited" in text for text in stage.texts)
        assert stage.pictures == []
        assert stage.kept == {}


@each_platform
async def test_a_user_has_five_in_five_minutes(
    platform: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time; the sixth is told when to come back, and another user is not."""
    async with PLATFORMS[platform](stage, monkeypatch):
        async with anyio.create_task_group() as group:
            for number in range(6):
                group.start_soon(stage.ask, f"egg {number}")
        assert len(stage.emulator.accepted) == 5
        assert any("Please come back in" in text for text in stage.texts)
        assert any("number" in text for text in stage.texts)
        await stage.ask("another egg", 8)
        assert len(stage.emulator.accepted) == 6


@each_platform
async def test_trouble_is_told_and_nothing_is_bought_twice(
    platform: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost answer, and a picture that never comes."""
    stage.emulator.fail_next(Fault.lost(), Fault.stuck())
    async with PLATFORMS[platform](stage, monkeypatch):
        await stage.ask("an egg")
        assert "do not ask again" in stage.texts[-1]
        await stage.ask("an egg")
        assert "delivered later" in stage.texts[-1]
        assert len(stage.emulator.accepted) == 2
        assert list(stage.kept) == stage.emulator.accepted[1:]


@each_platform
async def test_an_orderly_end_still_delivers_what_is_nearly_done(
    platform: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten seconds are given to it, and nothing is kept for the next start."""
    stage.emulator = EggEmulator(clock=virtual_clock, seed=2, speed=10)
    async with anyio.create_task_group() as group:
        async with PLATFORMS[platform](stage, monkeypatch):
            group.start_soon(stage.ask, "an egg")
            await anyio.sleep(0.5)
            assert len(stage.emulator.accepted) == 1
            assert stage.pictures == []
        assert len(stage.pictures) == 1
    assert stage.kept == {}


@each_platform
async def test_a_restart_delivers_what_was_asked_for_before(
    platform: str, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first life ends while two pictures are drawn; the second sends what came of them."""
    async with anyio.create_task_group() as group:
        async with PLATFORMS[platform](stage, monkeypatch):
            group.start_soon(stage.ask, "an egg", 1)
            group.start_soon(stage.ask, "a forbidden egg", 2)
            await anyio.sleep(1)
            assert sorted(stage.kept) == sorted(stage.emulator.accepted)
            group.cancel_scope.cancel()
    assert stage.pictures == []
    async with PLATFORMS[platform](stage, monkeypatch):
        await anyio.sleep(120)
        [picture] = stage.pictures
        assert picture.startswith(b"\x89PNG")
        assert any("content filter" in text for text in stage.texts)
        assert stage.kept == {}
    assert len(stage.emulator.accepted) == 2


def test_every_bot_is_tried_and_says_what_it_needs() -> None:
    """None is forgotten; each names its dependencies for runners of single files."""
    names = {*EXAMPLES.glob("*_bot.py"), *EXAMPLES.glob("telegram_*.py")}
    assert {path.stem for path in names} == set(PLATFORMS)
    for path in names:
        head = path.read_text("utf-8").partition('"""')[0]
        assert head.startswith("# /// script\n"), path
        assert '"eggapi-async"' in head
