"""What a student that does not write reads of a conversation."""

from synthgen.train.conversation import Conversation
from synthgen.train.tasks.config import TextConfig

__all__ = ["question"]


def question(conversation: Conversation, config: TextConfig) -> str | None:
    """The text, without surrounding space; None where the conversation has none, or not the words it should follow."""
    turns = [at for at, message in enumerate(conversation.messages) if message.role == "assistant"]
    before = conversation.messages[: turns[-1]] if turns else conversation.messages
    if config.read == "last":
        before = tuple(message for message in before if message.role == "user")[-1:]
    text = "\n\n".join(message.content for message in before if message.content)
    if config.after is not None:
        _, found, text = text.partition(config.after)
        text = text if found else ""
    return text.strip() or None
