"""The operator's web: dashboard, agent pages, login. Made by the daemon: `app.Web`."""
