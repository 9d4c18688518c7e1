"""What each status of an agent is called, and what it means: the same words at every surface.

`assets/js/agent_words.js` has them again for the pages, `docs/operating.md` for people; a test compares all.
"""

from typing import Final

from hive_shared.wire import AgentStatus, AgentView

WORDS: Final[dict[AgentStatus, str]] = {
    AgentStatus.OFFLINE: "offline",
    AgentStatus.STARTING: "starting",
    AgentStatus.NEEDS_LOGIN: "needs login",
    AgentStatus.IDLE: "idle",
    AgentStatus.THINKING: "thinking",
    AgentStatus.COMPACTING: "compacting",
    AgentStatus.WAITING_FOR_YOU: "waiting for you",
    AgentStatus.WAITING_FOR_LIMIT: "waiting for limit",
    AgentStatus.PARKED: "parked",
    AgentStatus.CRASHED: "crashed",
    AgentStatus.STOPPED: "stopped",
    AgentStatus.CREATING: "creating",
    AgentStatus.REBUILDING: "rebuilding",
    AgentStatus.STOPPING: "stopping",
    AgentStatus.DESTROYING: "destroying",
    AgentStatus.DESTROYED: "destroyed",
}

MEANINGS: Final[dict[AgentStatus, str]] = {
    AgentStatus.OFFLINE: "its container runs, and no harness answers in it",
    AgentStatus.STARTING: "its container was started just now, and its harness has not reported in yet",
    AgentStatus.NEEDS_LOGIN: "it cannot work before somebody has logged it in on its page",
    AgentStatus.IDLE: "it waits for a message",
    AgentStatus.THINKING: "a turn runs",
    AgentStatus.COMPACTING: "its conversation is being summarised: it was too long, or you asked",
    AgentStatus.WAITING_FOR_YOU: "its turn waits until you allow or deny a tool call",
    AgentStatus.WAITING_FOR_LIMIT: "its model's limit is reached; it goes on by itself, at the time shown",
    AgentStatus.PARKED: "it would work, and the hive holds it back until you decide or the time shown",
    AgentStatus.CRASHED: "its container ended by itself; it is started again",
    AgentStatus.STOPPED: "you or the manager stopped it; its inbox keeps filling",
    AgentStatus.CREATING: "it is being made",
    AgentStatus.REBUILDING: "what it runs is being built again, or changed",
    AgentStatus.STOPPING: "its container has been asked to end",
    AgentStatus.DESTROYING: "its container is being removed",
    AgentStatus.DESTROYED: "its container is gone; its state is kept, and it can be revived",
}


def words_of(agent: AgentView) -> str:
    """The status of an agent, as it is called."""
    return WORDS[agent.status]
