pytest_plugins = ["quiktrade.pytest_plugin"]
