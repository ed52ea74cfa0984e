# /// script
# requires-python = ">=3.11"
# dependencies = ["python-telegram-bot>=21", "eggapi-async"]
# ///
"""python-telegram-bot: `/imagine an egg`, a picture as a photo, with its progress on the way.

    TELEGRAM_TOKEN=… EGGAPI_API_KEY=… python telegram_ptb.py

A user has one picture at a time and five in five minutes. Who asked for which task is kept in a
file, so that a restart in the middle loses none: it is delivered to the chat that asked.
"""

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Any

from telegram import Bot, Update
from telegram.ext import Application, ApplicationBuilder, CommandHandler, ContextTypes

from eggapi_async import AsyncEggClient, EggError, NotFoundError, TaskFailedError, Turns

log = logging.getLogger(__name__)
OPEN = Path("ptb_tasks.json")
PATIENCE = 600.0  # seconds
TURNS = Turns(concurrency=1, quota=5, per=300)


def kept() -> dict[str, int]:
    """The chat that asked, by the id of its task."""
    return json.loads(OPEN.read_text()) if OPEN.exists() else {}


def keep(task_id: str, chat_id: int | None) -> None:
    """Note who asked for a task; None once they have got it."""
    chats = {**kept(), task_id: chat_id}
    OPEN.write_text(json.dumps({task: chat for task, chat in chats.items() if chat is not None}))


async def imagine(update: Update, context: ContextTypes.DEFAULT_TYPE) -> None:
    message, egg = update.effective_message, context.bot_data["egg"]
    assert message is not None
    user = update.effective_user.id if update.effective_user else message.chat_id
    place = TURNS.position(user)
    status = await message.reply_text(f"You are number {place} in the queue." if place else "⏳")
    try:
        async with TURNS.turn(user):
            task = await egg.generate(" ".join(context.args or []))
            keep(task.id, message.chat_id)
            async with asyncio.timeout(PATIENCE):
                async for snapshot in task.updates(every=3.0):
                    await status.edit_text(f"{snapshot.status}, {task.elapsed or 0:.0f} s")
                picture = await task.read()
            await message.reply_photo(picture, filename=f"{task.id}.png")
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
    try:
        await bot.send_photo(chat_id, await egg.task(task_id).read(), filename=f"{task_id}.png")
    except (NotFoundError, TaskFailedError) as error:
        await bot.send_message(chat_id, error.user_message)
    keep(task_id, None)


async def start(application: "Application[Any, Any, Any, Any, Any, Any]") -> None:
    egg, bot = AsyncEggClient(), application.bot
    late = [asyncio.create_task(deliver(bot, egg, *each)) for each in kept().items()]
    application.bot_data.update(egg=egg, late=late)


async def stop(application: "Application[Any, Any, Any, Any, Any, Any]") -> None:
    unfinished = await application.bot_data["egg"].aclose(drain=10)
    log.info("%d pictures will be delivered after the next start", len(unfinished))


def make(
    builder: "ApplicationBuilder[Any, Any, Any, Any, Any, Any]",
) -> "Application[Any, Any, Any, Any, Any, Any]":
    """Updates are handled side by side: one user's picture must not hold up the others."""
    application = builder.concurrent_updates(True).post_init(start).post_stop(stop).build()
    application.add_handler(CommandHandler("imagine", imagine))
    return application


if __name__ == "__main__":
    make(Application.builder().token(os.environ["TELEGRAM_TOKEN"])).run_polling()
