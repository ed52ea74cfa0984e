# /// script
# requires-python = ">=3.11"
# dependencies = ["discord.py>=2.5", "eggapi-async"]
# ///
"""discord.py: `/imagine`, a picture as an attachment, with its progress on the way.

    DISCORD_TOKEN=… EGGAPI_API_KEY=… python discord_bot.py

A user has one picture at a time and five in five minutes. Who asked for which task is kept in a
file, so that a restart in the middle loses none: it is delivered to the channel that asked.
"""

import asyncio
import io
import json
import logging
import os
from pathlib import Path

import discord
from discord import app_commands

from eggapi_async import (
    AsyncEggClient,
    EggError,
    GenerationTask,
    NotFoundError,
    TaskFailedError,
    Turns,
)

log = logging.getLogger(__name__)
OPEN = Path("discord_tasks.json")
PATIENCE = 600.0  # seconds; an interaction can be answered for 15 minutes


def kept() -> dict[str, int]:
    """The channel that asked, by the id of its task."""
    return json.loads(OPEN.read_text()) if OPEN.exists() else {}


def keep(task_id: str, channel_id: int | None) -> None:
    """Note who asked for a task; None once they have got it."""
    channels = {**kept(), task_id: channel_id}
    OPEN.write_text(json.dumps({task: one for task, one in channels.items() if one is not None}))


def attachment(task: GenerationTask, picture: bytes) -> discord.File:
    return discord.File(io.BytesIO(picture), f"{task.id}.png")


class EggBot(discord.Client):
    def __init__(self) -> None:
        super().__init__(intents=discord.Intents.default())
        self.tree = app_commands.CommandTree(self)
        self.tree.add_command(imagine)
        self.turns = Turns(concurrency=1, quota=5, per=300)

    async def setup_hook(self) -> None:
        self.egg = AsyncEggClient()
        await self.tree.sync()
        self.late = [asyncio.create_task(self.deliver(*each)) for each in kept().items()]

    async def deliver(self, task_id: str, channel_id: int) -> None:
        """Send what was asked for before a restart."""
        channel = await self.fetch_channel(channel_id)
        assert isinstance(channel, discord.abc.Messageable)
        task = self.egg.task(task_id)
        try:
            await channel.send(file=attachment(task, await task.read()))
        except (NotFoundError, TaskFailedError) as error:
            await channel.send(error.user_message)
        keep(task_id, None)

    async def close(self) -> None:
        unfinished = await self.egg.aclose(drain=10)  # what is nearly done is still delivered
        log.info("%d pictures will be delivered after the next start", len(unfinished))
        await super().close()


@app_commands.command(description="Draw a picture")
async def imagine(interaction: discord.Interaction[EggBot], prompt: str) -> None:
    await interaction.response.defer(thinking=True)  # within 3 s, whatever happens then
    bot, edit = interaction.client, interaction.edit_original_response
    try:
        if place := bot.turns.position(interaction.user.id):
            await edit(content=f"You are number {place} in the queue.")
        async with bot.turns.turn(interaction.user.id):
            task = await bot.egg.generate(prompt)
            keep(task.id, interaction.channel_id)
            async with asyncio.timeout(PATIENCE):
                async for snapshot in task.updates(every=2.0):
                    await edit(content=f"{snapshot.status}, {task.elapsed or 0:.0f} s")
                picture = await task.read()
            await edit(content=prompt, attachments=[attachment(task, picture)])
            keep(task.id, None)
    except TaskFailedError as error:
        keep(error.task_id, None)
        await edit(content=error.user_message)
    except EggError as error:
        await edit(content=error.user_message)
    except TimeoutError:
        await edit(content="This takes long. It will be delivered later.")


if __name__ == "__main__":
    EggBot().run(os.environ["DISCORD_TOKEN"])
