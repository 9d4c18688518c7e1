# Settings of the daemon (hive_core/config.py), all but those that the module decides on: where things are,
# the runtime, and the API key. A test compares the names. There is no freeform type: a mistyped name is an
# error of the evaluation and not of the daemon at night.
{ lib }:

let
  inherit (lib) types;
  own = import ../types.nix { inherit lib; };
  inherit (own) atLeast positive size;
  inherit (types.ints) between;
  count = own.called "integer above 0" types.ints.positive;
  setting =
    type: description:
    lib.mkOption {
      type = types.nullOr type;
      default = null;
      defaultText = lib.literalMD "the daemon's";
      inherit description;
    };
in
{
  host_name = setting (own.text "name of a host" "[a-z0-9][a-z0-9.-]{0,62}") "What this machine is called in the database.";
  listen_address = setting types.str "Address of the dashboard and the agents' ports.";
  dashboard_port = setting (own.called "port" types.port) "Port of the dashboard.";
  agent_page_ports = setting types.bool "Also answer on 8000 (the manager) and 8100–8999 (agents), with a redirect to the dashboard.";
  allowed_hosts = setting (types.listOf types.str) "Where else the dashboard may be called: a name, `name:port`, or a proxy's `https://name` or `https://name/path`.";
  trusted_proxies = setting (types.listOf types.str) "Addresses and networks of reverse proxies that are believed about who calls.";
  forwarded_headers = setting (types.enum [
    "x-forwarded"
    "forwarded"
  ]) "Which headers the proxy sets: `X-Forwarded-*`, or `Forwarded`.";
  listen_socket = setting types.path "A Unix socket of the dashboard for a reverse proxy, which is believed there.";
  listen_socket_group = setting types.str "Group that may use the socket for a proxy.";
  session_idle_days = setting positive "Days without use after which a browser is logged out.";
  session_max_days = setting positive "Days after which a browser is logged out in any case.";
  operator_pronouns = setting (own.text "1 to 40 characters" ".{1,40}") "How agents speak of you.";

  backend = setting (types.enum [
    "claude"
    "codex"
    "openai"
    "rehearsal"
  ]) "What thinks in agents without a backend of their own.";
  model = setting (own.text "name of a model" ".{1,128}") "Model of agents without a model of their own.";
  agent_environment = setting (types.attrsOf types.str) "Further variables of the agents. No secrets: they are in the Nix store.";
  limits = {
    memory_max_bytes = setting size "Memory of one agent; also written `4G`.";
    tasks_max = setting (atLeast 16) "Processes and threads of one agent.";
    cpu_quota_percent = setting count "Processor time of one agent; 100 is one core.";
    open_files = setting (atLeast 64) "Open files of one process of an agent.";
  };

  hyperhive_flake = setting types.str "Where containers take hyperhive from.";
  allow_unfree_claude_code = setting types.bool "Whether containers may have the Claude Code CLI, which is unfree.";
  private_network = setting types.bool "Whether containers have a network of their own.";
  user_namespaces = setting types.bool "Whether root in a container is nobody outside.";

  restart_backoff_first_seconds = setting positive "Seconds of pause before an agent that crashed is started again; doubles each time.";
  restart_backoff_max_seconds = setting positive "And no longer than these seconds.";
  healthy_after_seconds = setting positive "Running for so many seconds forgets earlier crashes.";
  silent_after_seconds = setting positive "A harness that has not been heard of for so many seconds is offline.";
  stuck_after_seconds = setting own.notNegative "One that stays silent for so many seconds is restarted; 0 for never.";
  stop_grace_seconds = setting positive "Seconds for an agent to end before it is killed.";
  start_parallel = setting (between 1 64) "Agents that start at a time.";
  log_max_bytes = setting size "Of one agent's console log, where core keeps it.";

  auto_update = setting types.bool "At start, rebuild the agents that were built from another revision.";
  build_timeout_seconds = setting positive "Seconds for one build.";
  build_parallel = setting (between 1 16) "Builds at a time.";

  sends_per_minute = setting count "Messages of one agent, in the long run.";
  send_burst = setting count "And at once.";
  inbox_depth = setting count "Unread messages of one agent; further ones are refused.";
  retention_days = setting positive "Days for messages that are done with.";
  crashes_per_message = setting types.ints.unsigned "An agent that ends so often by itself with the same message in hand goes on with the next; 0 for never.";

  loop_messages = setting types.ints.unsigned "Messages of two agents to each other after which they are paused; 0 pauses nobody.";
  loop_window_seconds = setting positive "And the seconds within which these are counted.";
  next_turns_in_a_row = setting types.ints.unsigned "Turns that an agent may ask for itself in a row, without a message from anybody else, before you are asked; 0 for any number.";
  budget_turns = setting types.ints.unsigned "Turns of one agent in a day; 0 for no limit.";
  budget_tokens = setting types.ints.unsigned "Tokens of one agent in a day, those read from a cache left out; 0 for no limit.";
  budget_dollars = setting own.notNegative "Dollars of one agent in a day; 0 for no limit.";
  budget_warn_percent = setting (between 1 100) "Percent of a limit of its budget at which an agent is told.";
  time_zone = setting types.str "The time zone in which days begin, such as Europe/Berlin; without, the host's.";
  send_allow = setting (types.attrsOf (types.listOf types.str)) "Whom an agent may write to; one that is not named, everyone.";

  notify_urls_file = setting types.path "A file of Apprise URLs, one a line, that only the daemon can read; see *Notifications*.";
  notify_base_url = setting types.str "Address of the dashboard in the links of notifications.";
  notify_detail = setting (types.enum [
    "excerpt"
    "count"
  ]) "What notifications tell: who wants what, with an excerpt, or only how much waits.";
  notify_quiet_hours = setting types.str "Hours without notifications, such as `22:00-07:00 Europe/Berlin`.";
  notify_pause_seconds = setting positive "Seconds at least between two notifications.";

  log_level = setting (types.enum [
    "debug"
    "info"
    "warning"
    "error"
  ]) "How much the daemon tells the journal.";
  log_format = setting (types.enum [
    "auto"
    "text"
    "json"
    "journal"
  ]) "How; `auto` is the journal's own fields.";
  slow_seconds = setting own.notNegative "Seconds after which an operation is a line in the log; 0 for never.";
  loop_blocked_seconds = setting own.notNegative "Seconds of standing still that are told with their place; 0 for never.";
  metrics_socket = setting types.path "A Unix socket for a scraper of metrics.";
}
