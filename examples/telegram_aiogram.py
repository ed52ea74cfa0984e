# /// script
# requires-python = ">=3.11"
# dependencies = ["aiogram>=3.20", "eggapi-async"]
# ///
"""aiogram: `/imagine an egg`, a picture as a photo, with its progress on the way.

    TELEGRAM_TOKEN=… EGGAPI_API_KEY=… python telegram_aiogram.py

A user has one picture at a time and five in five minutes. Who asked for which task is kept in a
file, so that a restart in the middle loses none: it is delivered to the chat that asked.
"""

import asyncio
import json
import logging
import os
from pathlib import Path

from aiogram import Bot, Dispatcher
from aiogram.filters import Command, CommandObject
from aiogram.types import BufferedInputFile, Message

from eggapi_async import (
    AsyncEggClient,
    EggError,
    GenerationTask,
    NotFoundError,
    TaskFailedError,
    Turns,
)

log = logging.getLogger(__name__)
OPEN = Path("aiogram_tasks.json")
PATIENCE = 600.0  # seconds


def kept() -> dict[str, int]:
    """The chat that asked, by the id of its task."""
    return json.loads(OPEN.read_text()) if OPEN.exists() else {}


def keep(task_id: str, chat_id: int | None) -> None:
    """Note who asked for a task; None once they have got it."""
    chats = {**kept(), task_id: chat_id}
    OPEN.write_text(json.dumps({task: chat for task, chat in chats.items() if chat is not None}))


def photo(task: GenerationTask, picture: bytes) -> BufferedInputFile:
    return BufferedInputFile(picture, f"{task.id}.png")


async def imagine(
    message: Message, command: CommandObject, egg: AsyncEggClient, turns: Turns
) -> None:
    user = message.from_user.id if message.from_user else message.chat.id
    place = turns.position(user)
    status = await message.answer(f"You are number {place} in the queue." if place else "⏳")
    try:
        async with turns.turn(user):
            task = await egg.generate(command.args or "")
            keep(task.id, message.chat.id)
            async with asyncio.timeout(PATIENCE):
                async for snapshot in task.updates(every=3.0):
                    await status.edit_text(f"{snapshot.status}, {task.elapsed or 0:.0f} s")
                picture = await task.read()
            await message.answer_photo(photo(task, picture))
            keep(task.id, None)
            await status.delete()
    except TaskFailedError as error:
        keep(error.task_id, None)
        await status.edit_text(error.user_message)
    except EggError as error:
        await status.edit_text(error.user_message)
    except TimeoutError:
        await status.edit_text("This takes long. It will be delivered later.")


async def deliver(bot: Bot, egg: AsyncEggClient, task_id: str, chat_id: int) -> None:
    """Send what was asked for before a restart."""
    task = egg.task(task_id)
    try:
        await bot.send_photo(chat_id, photo(task, await task.read()))
    except (NotFoundError, TaskFailedError) as error:
        await bot.send_message(chat_id, error.user_message)
    keep(task_id, None)


async def start(dispatcher: Dispatcher, bot: Bot) -> None:
    egg = AsyncEggClient()
    late = [asyncio.create_task(deliver(bot, egg, *each)) for each in kept().items()]
    dispatcher.workflow_data.update(egg=egg, late=late)


async def stop(egg: AsyncEggClient) -> None:
    unfinished = await egg.aclose(drain=10)  # what is nearly done is still delivered
    log.info("%d pictures will be delivered after the next start", len(unfinished))


def make() -> Dispatcher:
    dispatcher = Dispatcher(turns=Turns(concurrency=1, quota=5, per=300))
    dispatcher.message.register(imagine, Command("imagine"))
    dispatcher.startup.register(start)
    dispatcher.shutdown.register(stop)
    return dispatcher


if __name__ == "__main__":
    asyncio.run(make().start_polling(Bot(os.environ["TELEGRAM_TOKEN"])))
