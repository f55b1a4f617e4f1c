pytest_plugins = ["quiktrade.tests.plugin"]
