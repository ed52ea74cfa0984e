# /// script
# requires-python = ">=3.11"
# dependencies = ["aiohttp>=3.10", "eggapi-async", "slack-bolt>=1.21"]
# ///
"""slack-bolt: `/imagine an egg`, a picture as a file, with its progress on the way.

    SLACK_BOT_TOKEN=… SLACK_APP_TOKEN=… SLACK_SIGNING_SECRET=… EGGAPI_API_KEY=… python slack_bot.py

A user has one picture at a time and five in five minutes. Who asked for which task is kept in a
file, so that a restart in the middle loses none: it is delivered to the channel that asked.
"""

import asyncio
import json
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from eggapi_async import AsyncEggClient, EggError, NotFoundError, TaskFailedError, Turns

log = logging.getLogger(__name__)
OPEN = Path("slack_tasks.json")
PATIENCE = 600.0  # seconds


def kept() -> dict[str, str]:
    """The channel that asked, by the id of its task."""
    return json.loads(OPEN.read_text()) if OPEN.exists() else {}


def keep(task_id: str, channel: str | None) -> None:
    """Note who asked for a task; None once they have got it."""
    channels = {**kept(), task_id: channel}
    OPEN.write_text(json.dumps({task: one for task, one in channels.items() if one is not None}))


def make(egg: AsyncEggClient) -> AsyncApp:
    app = AsyncApp(
        token=os.environ["SLACK_BOT_TOKEN"], signing_secret=os.environ["SLACK_SIGNING_SECRET"]
    )
    turns = Turns(concurrency=1, quota=5, per=300)

    @app.command("/imagine")
    async def imagine(ack: AsyncAck, command: dict[str, Any], client: AsyncWebClient) -> None:
        await ack()  # within 3 s, whatever happens then
        user, channel, prompt = command["user_id"], command["channel_id"], command["text"]
        place = turns.position(user)
        text = f"You are number {place} in the queue." if place else "⏳"
        posted = await client.chat_postMessage(channel=channel, text=text)

        async def edit(text: str) -> None:
            await client.chat_update(channel=channel, ts=posted["ts"], text=text)

        try:
            async with turns.turn(user):
                task = await egg.generate(prompt)
                keep(task.id, channel)
                async with asyncio.timeout(PATIENCE):
                    async for snapshot in task.updates(every=2.0):
                        await edit(f"{snapshot.status}, {task.elapsed or 0:.0f} s")
                    picture = await task.read()
                await upload(client, channel, task.id, picture, prompt)
                keep(task.id, None)
        except TaskFailedError as error:
            keep(error.task_id, None)
            await edit(error.user_message)
        except EggError as error:
            await edit(error.user_message)
        except TimeoutError:
            await edit("This takes long. It will be delivered later.")

    return app


async def upload(
    client: AsyncWebClient, channel: str, task_id: str, picture: bytes, title: str
) -> None:
    name = f"{task_id}.png"
    await client.files_upload_v2(channel=channel, filename=name, content=picture, title=title)


async def deliver(client: AsyncWebClient, egg: AsyncEggClient, task_id: str, channel: str) -> None:
    """Send what was asked for before a restart."""
    try:
        await upload(client, channel, task_id, await egg.task(task_id).read(), "as asked before")
    except (NotFoundError, TaskFailedError) as error:
        await client.chat_postMessage(channel=channel, text=error.user_message)
    keep(task_id, None)


async def main() -> None:
    this = asyncio.current_task()
    assert this is not None
    with suppress(NotImplementedError):  # Windows knows Ctrl-C only
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    egg = AsyncEggClient()
    app = make(egg)
    late = asyncio.gather(*(deliver(app.client, egg, *each) for each in kept().items()))
    try:
        await AsyncSocketModeHandler(app, os.environ["SLACK_APP_TOKEN"]).start_async()  # type: ignore[no-untyped-call]
    finally:
        unfinished = await egg.aclose(drain=10)  # what is nearly done is still delivered
        log.info("%d pictures will be delivered after the next start", len(unfinished))
        late.cancel()


if __name__ == "__main__":
    asyncio.run(main())
